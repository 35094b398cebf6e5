"""
The ledger's database: any that SQLAlchemy supports; SQLite by default, PostgreSQL for a fleet.

Rows may arrive twice, late, and from several workers at once; each is counted once. The row of an
abandoned call is replaced if the outcome of the call arrives after all.
"""

import logging
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    IntegrityError,
    NoSuchModuleError,
)

from breakwater.errors import ConfigError
from tasks.ledger.rows import KEY, Row, key_of, log_refused, parse_row
from tasks.ledger.sums import DAY_MS, Key, SumPrunedError, add_to_daily_sums
from tasks.ledger.tables import METADATA, SCHEMA, attempts, day_times, days, versions

DEFAULT_URL = "sqlite:///ledger.db"
BUSY_S = 10.0
"""How long to wait for SQLite while another process writes."""
LIBPQ = {"connect_timeout": 5, "tcp_user_timeout": 30_000}
"""
Defaults for PostgreSQL's client, which LEDGER_URL can override.

Seconds to connect, and milliseconds until a silent network counts as down. Without these the client
waits two minutes and a quarter of an hour.
Source: PostgreSQL's manual, "Parameter Key Words" of libpq.
"""
TRIES = 5
"""Two processes may add the first row of a day at the same moment."""
IDS_MULTIPLE = 100
"""
Lists of ids are padded to a multiple of this length.

Each length makes a different statement, of up to 100 kB, and SQLite's driver caches the last 128.
"""
MAX_EXISTING = 100_000
"""How many sums are remembered as existing."""

logging.getLogger("alembic").setLevel(logging.WARNING)


def ledger_url() -> str:
    """Return LEDGER_URL, by default the URL of a SQLite file in the current directory."""
    return os.environ.get("LEDGER_URL") or DEFAULT_URL


def is_sqlite() -> bool:
    """Return whether LEDGER_URL names a SQLite file; only the workers of one host can share it."""
    return ledger_url().startswith("sqlite")


def check_connection() -> str:
    """
    Connect to the ledger without creating it; return its URL without the password.

    Raises:
        ConfigError: LEDGER_URL cannot be used.
        SQLAlchemyError: The database is away.
    """
    engine = _engine(ledger_url())
    if not is_sqlite():
        engine.connect().close()
    engine.dispose()
    return engine.url.render_as_string(hide_password=True)


class Database:
    """
    An open ledger with the newest schema; a context manager that closes it.

    Args:
        url: None: LEDGER_URL.
        create: Create a missing SQLite file; if False, a missing file is an error.

    Raises:
        ConfigError: The URL cannot be used, or the ledger was written by a newer version.
        SQLAlchemyError: The database is away.
    """

    def __init__(self, url: str | None = None, *, create: bool = True) -> None:
        self.engine = _engine(url or ledger_url())
        self.display_url = self.engine.url.render_as_string(hide_password=True)
        if not create and self._lacks_file():
            raise ConfigError(
                f"there is no ledger {self.display_url}; set LEDGER_URL here as it is set for the "
                f"workers"
            )
        self._existing: set[Key] = set()
        with self.reading() as connection:
            version = _version(connection)
        if version != SCHEMA:
            with self._writing() as connection:
                _bring_up_to_date(connection, self.display_url)

    def _lacks_file(self) -> bool:
        """Return whether this is a SQLite ledger whose file does not exist."""
        file = self.engine.url.database
        if self.engine.dialect.name != "sqlite" or not file:
            return False
        return not Path(file).exists()

    def __enter__(self) -> "Database":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def add(self, lines: Iterable[str]) -> int:
        """
        Add rows, all or none; rows that exist already change nothing.

        Args:
            lines: JSON objects, as `Attempt.row` writes them; invalid ones are logged and dropped.

        Returns:
            How many rows were new, or replaced the row of an abandoned call.
        """
        rows = [row for row in map(parse_row, lines) if row]
        try:
            return self._add(rows)
        except (DataError, OverflowError):
            return sum(
                self._add_one(row) for row in rows
            )  # one bad row must not hold up the others

    def _add_one(self, row: Row) -> int:
        try:
            return self._add([row])
        except (DataError, OverflowError) as fault:
            log_refused(fault)
            return 0

    def _add(self, rows: list[Row]) -> int:
        for tries in range(TRIES):
            try:
                with self._writing() as connection:
                    number, keys = _add_new(connection, rows, self._existing)
                self._remember(keys)
                return number
            except (SumPrunedError, IntegrityError):
                self._existing.clear()
                if tries == TRIES - 1:
                    raise
        return 0

    def _remember(self, keys: set[Key]) -> None:
        # A driver that does not count the rows of several updates at once cannot detect that a
        # sum is gone, so no sum is assumed to exist.
        if self.engine.dialect.supports_sane_multi_rowcount:
            if len(self._existing) > MAX_EXISTING:
                self._existing.clear()
            self._existing |= keys

    def prune(self, before_ms: int) -> int:
        """Delete the whole days (UTC) that ended before this; return how many attempts they had."""
        day = before_ms // DAY_MS
        with self._writing() as connection:
            for table in (days, day_times):
                connection.execute(table.delete().where(table.c.day < day))
            old = attempts.delete().where(attempts.c.started_ms < day * DAY_MS)
            return connection.execute(old).rowcount

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads one state of the ledger."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        engine = self.engine.execution_options(writes=True)
        with engine.begin() as connection:
            yield connection


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        options = {}
        if parsed.drivername.endswith(("psycopg", "psycopg2")):
            options = {name: LIBPQ[name] for name in LIBPQ if name not in parsed.query}
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=options)
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(
            "LEDGER_URL is not a valid database URL; examples are "
            "sqlite:////var/lib/breakwater/ledger.db and postgresql+psycopg://user@host/name"
        ) from None
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"LEDGER_URL needs the module {missing.name}; for PostgreSQL: "
            f"pip install 'breakwater-llm[postgres]', with postgresql+psycopg://…"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # `_begin_sqlite` sends BEGIN
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={int(BUSY_S * 1000)}", "journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    begin = "BEGIN"
    if connection.get_execution_options().get("writes"):
        # A transaction that reads first fails to write if another one has written in between.
        begin = "BEGIN IMMEDIATE"
    connection.exec_driver_sql(begin)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(versions.name):
        return None
    return connection.execute(select(versions.c.version_num)).scalar() or ""


def _bring_up_to_date(connection: Connection, shown: str) -> None:
    if connection.dialect.name == "postgresql":  # one at a time; the others have nothing left to do
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7236183)")
    version = _version(connection)
    if version is None:
        # Source: Alembic's cookbook, "Building an Up to Date Database from Scratch". A table with
        # this name that belongs to another program is an error, as it is to a migration.
        METADATA.create_all(connection, checkfirst=False)
        versions.create(connection, checkfirst=False)
        connection.execute(versions.insert().values(version_num=SCHEMA))
    elif version != SCHEMA:
        _upgrade(connection, shown)


def _upgrade(connection: Connection, shown: str) -> None:
    from alembic import command  # noqa: PLC0415 - 10 MB, only to migrate
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(files("tasks.ledger") / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ConfigError(
            f"the ledger {shown} was written by a newer version of Breakwater; update this one"
        ) from None


def _add_new(
    connection: Connection, rows: list[Row], existing_sums: Collection[Key]
) -> tuple[int, set[Key]]:
    """Add new rows, replace abandoned ones; return how many, and which sums exist now."""
    best: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = key_of(row)
        if key not in best or best[key]["outcome"] == "abandoned":
            best[key] = row
    stored = _stored(connection, {row["task_id"] for row in best.values()})
    new = [row for key, row in best.items() if key not in stored]
    better = [row for key, row in best.items() if _replaces(row, stored.get(key))]
    if new:
        connection.execute(attempts.insert(), new)
    for row in better:
        same = (attempts.c[name] == row[name] for name in KEY)
        connection.execute(attempts.update().where(*same).values(row))
    replaced = [stored[key_of(row)] for row in better]
    sums = add_to_daily_sums(connection, [*new, *better], replaced, existing_sums)
    return len(new) + len(better), sums


def _stored(connection: Connection, task_ids: set[str]) -> dict[tuple[object, ...], Row]:
    """Return the rows of these tasks by their keys."""
    ids = sorted(task_ids)
    ids += ids[:1] * (-len(ids) % IDS_MULTIPLE)
    result = connection.execute(select(attempts).where(attempts.c.task_id.in_(ids)))
    rows: list[Row] = [dict(row) for row in result.mappings()]
    return {key_of(row): row for row in rows}


def _replaces(row: Row, stored: Row | None) -> bool:
    """Return whether a row has the outcome of a call whose stored row is an abandoned one."""
    return stored is not None and stored["outcome"] == "abandoned" != row["outcome"]

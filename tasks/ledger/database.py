"""
The ledger's database: any that SQLAlchemy speaks; SQLite by default, PostgreSQL for a fleet.

Rows may come twice, from several workers at once, and late; each is counted once. A row of a call
that was given up is replaced when its end becomes known after all.
"""

import logging
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    IntegrityError,
    NoSuchModuleError,
)

from breakwater.errors import ConfigError
from tasks.ledger.rows import KEY, Row, key_of, read, refused
from tasks.ledger.sums import DAY_MS, ForgottenError, Key, add_to_daily_sums
from tasks.ledger.tables import METADATA, SCHEMA, attempts, day_times, days, versions

DEFAULT_URL = "sqlite:///ledger.db"
BUSY_S = 10.0
"""How long SQLite is waited for while another process writes."""
LIBPQ = {"connect_timeout": 5, "tcp_user_timeout": 30_000}
"""
PostgreSQL's client, if LEDGER_URL says nothing else: s to connect, ms until a silent network is
given up; without these two minutes and a quarter of an hour.
Source: PostgreSQL's manual, "Parameter Key Words" of libpq.
"""
TRIES = 5
"""Two processes may add the first row of a day at the same moment."""
ROUNDED_TO = 100
"""
Ids are looked for in lists whose lengths are multiples of this: each length is a statement of its
own, of up to 100 kB, and SQLite's driver keeps the last 128 of them.
"""
MOST_KNOWN = 100_000
"""Sums whose being there is remembered."""

logging.getLogger("alembic").setLevel(logging.WARNING)


def ledger_url() -> str:
    """Return LEDGER_URL, or that of a SQLite file in the current directory."""
    return os.environ.get("LEDGER_URL") or DEFAULT_URL


def is_sqlite() -> bool:
    """Tell whether LEDGER_URL names a SQLite file, which only one host's workers can share."""
    return ledger_url().startswith("sqlite")


def check_connection() -> str:
    """
    Connect to the ledger, make nothing, and return its URL without the password.

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
    An open ledger, of the newest schema; a context manager that closes it.

    Args:
        url: LEDGER_URL if none is given.
        create: Make a SQLite file that is missing; else that is an error.

    Raises:
        ConfigError: The URL cannot be used, or the ledger was written by a newer version.
        SQLAlchemyError: The database is away.
    """

    def __init__(self, url: str | None = None, *, create: bool = True) -> None:
        self.engine = _engine(url or ledger_url())
        self.display_url = self.engine.url.render_as_string(hide_password=True)
        file = self.engine.url.database if self.engine.dialect.name == "sqlite" else None
        if not create and file and not Path(file).exists():
            raise ConfigError(
                f"there is no ledger {self.display_url}; the workers write it where LEDGER_URL "
                f"says, set it here as there"
            )
        self._known: set[Key] = set()
        with self.reading() as connection:
            version = _version(connection)
        if version != SCHEMA:
            with self._writing() as connection:
                _bring_up_to_date(connection, self.display_url)

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
        Add rows, all or none; those that are there already change nothing.

        Args:
            lines: JSON objects, as `Attempt.row` writes them; what is none is dropped, and logged.

        Returns:
            How many were new, or better known than before.
        """
        rows = [row for row in map(read, lines) if row]
        try:
            return self._add(rows)
        except (DataError, OverflowError):
            return sum(self._add_one(row) for row in rows)  # the others shall not wait for one

    def _add_one(self, row: Row) -> int:
        try:
            return self._add([row])
        except (DataError, OverflowError) as fault:
            refused(fault)
            return 0

    def _add(self, rows: list[Row]) -> int:
        for tries in range(TRIES):
            try:
                with self._writing() as connection:
                    number, keys = _add_new(connection, rows, self._known)
                self._remember(keys)
                return number
            except (ForgottenError, IntegrityError):
                self._known.clear()
                if tries == TRIES - 1:
                    raise
        return 0

    def _remember(self, keys: set[Key]) -> None:
        # Without a count of rows from several updates at once, none may be taken for granted.
        if self.engine.dialect.supports_sane_multi_rowcount:
            if len(self._known) > MOST_KNOWN:
                self._known.clear()
            self._known |= keys

    def prune(self, before_ms: int) -> int:
        """Delete whole days (UTC) that ended before this; return how many attempts they had."""
        day = before_ms // DAY_MS
        with self._writing() as connection:
            for table in (days, day_times):
                connection.execute(table.delete().where(table.c.day < day))
            old = attempts.delete().where(attempts.c.started_ms < day * DAY_MS)
            return connection.execute(old).rowcount

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees the ledger as it is now."""
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
        patience = LIBPQ if parsed.drivername.endswith(("psycopg", "psycopg2")) else {}
        known = {name: value for name, value in patience.items() if name not in parsed.query}
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=known)
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(
            "LEDGER_URL is no URL of a database; such are sqlite:////var/lib/breakwater/ledger.db "
            "and postgresql+psycopg://user@host/name"
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


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in (f"busy_timeout={int(BUSY_S * 1000)}", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # One that reads first and writes later fails if another has written in between.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(versions.name):
        return None
    return connection.execute(select(versions.c.version_num)).scalar() or ""


def _bring_up_to_date(connection: Connection, shown: str) -> None:
    if connection.dialect.name == "postgresql":  # one at a time; the others find it done
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7236183)")
    version = _version(connection)
    if version is None:
        # As Alembic's cookbook has it, "Building an Up to Date Database from Scratch". A table of
        # this name that is another's is an error, as it is to a migration.
        METADATA.create_all(connection, checkfirst=False)
        versions.create(connection, checkfirst=False)
        connection.execute(versions.insert().values(version_num=SCHEMA))
    elif version != SCHEMA:
        _upgrade(connection, shown)


def _upgrade(connection: Connection, shown: str) -> None:
    from alembic import command  # noqa: PLC0415 - 10 MB, when a ledger is older
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(files("tasks.ledger") / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ConfigError(
            f"the ledger {shown} was written by a newer version; update this one"
        ) from None


def _add_new(
    connection: Connection, rows: list[Row], known: Collection[Key]
) -> tuple[int, set[Key]]:
    """Add what is new or better known; return how many, and which sums are there now."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = key_of(row)
        if key not in best or best[key]["outcome"] == "abandoned":
            best[key] = row
    ids = sorted({row["task_id"] for row in best.values()})
    ids += ids[:1] * (-len(ids) % ROUNDED_TO)
    there = {
        key_of(found): dict(found)
        for found in connection.execute(
            select(attempts).where(attempts.c.task_id.in_(ids))
        ).mappings()
    }
    new = [row for key, row in best.items() if key not in there]
    better = [
        row
        for key, row in best.items()
        if key in there and there[key]["outcome"] == "abandoned" != row["outcome"]
    ]
    if new:
        connection.execute(attempts.insert(), new)
    for row in better:
        same = (attempts.c[name] == row[name] for name in KEY)
        connection.execute(attempts.update().where(*same).values(row))
    keys = add_to_daily_sums(
        connection, [*new, *better], [there[key_of(row)] for row in better], known
    )
    return len(new) + len(better), keys

"""
An open ledger: add rows, prune, read.

Rows may arrive twice, late, and from several workers at once; each is counted once. The row of an
abandoned call is replaced if the outcome of the call arrives after all.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.exc import DataError, IntegrityError

from breakwater.errors import ConfigError
from tasks.ledger.engine import ledger_url, open_engine
from tasks.ledger.migration import migrate, version_of
from tasks.ledger.rows import KEY, Row, key_of, log_refused, parse_row
from tasks.ledger.sums import DAY_MS, Key, SumPrunedError, add_to_daily_sums
from tasks.ledger.tables import SCHEMA, attempts, day_times, days

TRIES = 5
"""Two processes may add the first row of a day at the same moment."""
IDS_MULTIPLE = 100
"""
Lists of ids are padded to a multiple of this length.

Each length makes a different statement, of up to 100 kB, and SQLite's driver caches the last 128.
"""
MAX_EXISTING = 100_000
"""How many sums are remembered as existing."""


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
        self.engine = open_engine(url or ledger_url())
        self.display_url = self.engine.url.render_as_string(hide_password=True)
        if not create and self._lacks_file():
            raise ConfigError(
                f"there is no ledger {self.display_url}; set LEDGER_URL here as it is set for the "
                f"workers"
            )
        self._existing: set[Key] = set()
        with self.reading() as connection:
            version = version_of(connection)
        if version != SCHEMA:
            with self._writing() as connection:
                migrate(connection, self.display_url)

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

"""
The ledger's database: any that SQLAlchemy speaks; SQLite by default, PostgreSQL for a fleet.

Rows may come twice, from several workers at once, and late; each is counted once. A row of a call
that was given up is replaced when its end becomes known after all.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Table, bindparam, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, NoSuchModuleError

from tasks.errors import ConfigError
from tasks.ledger.tables import (
    DIMENSIONS,
    PICO,
    SUMS,
    TIMES,
    TOKENS,
    attempts,
    bucket_of,
    day_times,
    days,
)

DEFAULT_URL = "sqlite:///ledger.db"
DAY_MS = 24 * 3600 * 1000
BUSY_S = 10.0
"""How long SQLite is waited for while another process writes."""
TRIES = 5
"""Two processes may add the first row of a day at the same moment."""
KEY = ("task_id", "attempt", "started_ms")
NUMBERS = ("attempt", "started_ms", "latency_ms", "queued_ms", "failover", *TOKENS)
TEXTS = (
    "task_id", "role", "provider", "model", "outcome", "worker", "roles_version", "why",
)  # fmt: skip
LONGEST = 255
LARGEST = 2**63 - 1

_log = structlog.get_logger("breakwater")
logging.getLogger("alembic").setLevel(logging.WARNING)

Row = dict[str, Any]


def ledger_url() -> str:
    """Return LEDGER_URL, or that of a SQLite file in the current directory."""
    return os.environ.get("LEDGER_URL") or DEFAULT_URL


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
        self.shown = self.engine.url.render_as_string(hide_password=True)
        file = self.engine.url.database if self.engine.dialect.name == "sqlite" else None
        if not create and file and not Path(file).exists():
            raise ConfigError(
                f"there is no ledger {self.shown}; the workers write it where LEDGER_URL says, set "
                f"it here as there"
            )
        with self._writing() as connection:
            _upgrade(connection, self.shown)

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
        rows = [row for row in map(columns_of, lines) if row]
        try:
            return self._add(rows)
        except (DataError, OverflowError):
            return sum(self._add_one(row) for row in rows)  # the others shall not wait for one

    def _add_one(self, row: Row) -> int:
        try:
            return self._add([row])
        except (DataError, OverflowError) as fault:
            _log.error("ledger.row_refused", error=type(fault).__name__)
            return 0

    def _add(self, rows: list[Row]) -> int:
        for tries in range(TRIES):
            try:
                with self._writing() as connection:
                    return _add_new(connection, rows)
            except IntegrityError:
                if tries == TRIES - 1:
                    raise
        return 0

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
        engine = create_engine(parsed, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(
            "LEDGER_URL is no URL of a database; such are sqlite:////var/lib/breakwater/ledger.db "
            "and postgresql+psycopg://user@host/name"
        ) from None
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"LEDGER_URL needs the module {missing.name}; for PostgreSQL: "
            f"pip install 'breakwater[postgres]', with postgresql+psycopg://…"
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


def _upgrade(connection: Connection, shown: str) -> None:
    from alembic import command  # noqa: PLC0415 - only when a ledger is opened
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    if connection.dialect.name == "postgresql":  # one at a time; the others find it done
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7236183)")
    config = Config()
    config.set_main_option("script_location", str(files("tasks.ledger") / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ConfigError(
            f"the ledger {shown} was written by a newer version; update this one"
        ) from None


def columns_of(line: str) -> Row | None:
    """Return a row's columns; None if it is none."""
    try:
        given = json.loads(line)
        row: Row = {name: str(given[name])[:LONGEST] for name in TEXTS if name != "why"}
        row["why"] = str(given["why"])
        row["error"] = given.get("error") or ""
        for name in NUMBERS:
            row[name] = min(max(int(given[name]), 0), LARGEST)
        for name in ("status", "first_token_ms", "price_source", "price_version", "request_id"):
            row[name] = given.get(name)
        usd = given.get("cost_usd")
        row["cost_pico_usd"] = None if usd is None else round(Decimal(usd) * PICO)
        row["metadata"] = given.get("metadata") or {}
    except (ArithmeticError, KeyError, TypeError, ValueError) as fault:
        _log.error("ledger.row_refused", error=type(fault).__name__)
        return None
    return row


def _add_new(connection: Connection, rows: list[Row]) -> int:
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = _key(row)
        if key not in best or best[key]["outcome"] == "abandoned":
            best[key] = row
    ids = {row["task_id"] for row in best.values()}
    there = {
        _key(found): dict(found)
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
    _add_up(connection, [*new, *better], [there[_key(row)] for row in better])
    return len(new) + len(better)


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def _add_up(connection: Connection, more: list[Row], less: list[Row]) -> None:
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    times: dict[tuple[Any, ...], Counter[str]] = {}
    for sign, rows in ((1, more), (-1, less)):
        for row in rows:
            key = (row["started_ms"] // DAY_MS, *(row[name] for name in DIMENSIONS))
            count = sums.setdefault(key, Counter())
            count["attempts"] += sign
            count["failovers"] += sign * row["failover"]
            count["unpriced"] += sign * (row["price_source"] == "unpriced")
            count["cost_pico_usd"] += sign * (row["cost_pico_usd"] or 0)
            for kind in TOKENS:
                count[kind] += sign * row[kind]
            for time in TIMES:
                if row[time] is not None and row["outcome"] != "rejected":
                    bucket = (*key, time, bucket_of(row[time]))
                    times.setdefault(bucket, Counter())["attempts"] += sign
    _add_to(connection, days, SUMS, sums)
    _add_to(connection, day_times, ("attempts",), times)


def _add_to(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    sums: dict[tuple[Any, ...], Counter[str]],
) -> None:
    """Add to the sums that are there, and begin those that are not."""
    if not sums:
        return
    names = [column.name for column in table.primary_key]
    changes = {
        key: {
            **{f"key_{name}": part for name, part in zip(names, key, strict=True)},
            **{f"add_{column}": count[column] for column in columns},
        }
        for key, count in sums.items()
    }
    add = (
        table.update()
        .where(*(table.c[name] == bindparam(f"key_{name}") for name in names))
        .values({column: table.c[column] + bindparam(f"add_{column}") for column in columns})
    )
    if connection.execute(add, list(changes.values())).rowcount == len(changes):
        return
    keys = select(*(table.c[name] for name in names))
    known = connection.execute(keys.where(table.c.day.in_({key[0] for key in sums})))
    there = {tuple(key) for key in known}
    connection.execute(
        table.insert(),
        [
            {**dict(zip(names, key, strict=True)), **{name: count[name] for name in columns}}
            for key, count in sums.items()
            if key not in there
        ],
    )

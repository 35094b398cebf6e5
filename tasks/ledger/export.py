"""The attempts themselves, read one at a time."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import select

from tasks.ledger.attempt_filter import AttemptFilter
from tasks.ledger.database import Database
from tasks.ledger.rows import Row
from tasks.ledger.tables import PICO, attempts

BATCH_SIZE = 1000
COLUMNS = (
    "started_at", *(column.name.replace("cost_pico_usd", "cost_usd") for column in attempts.columns)
)  # fmt: skip


def export(database: Database, where: AttemptFilter) -> Iterator[Row]:
    """
    Read attempts, the oldest first.

    Yields:
        COLUMNS and their values; `cost_usd` is a decimal string, `metadata` an object.

    Raises:
        SQLAlchemyError: The database is away.
    """
    query = select(attempts).where(*where.conditions_on_attempts()).order_by(attempts.c.started_ms)
    with database.reading() as connection:
        rows = connection.execution_options(yield_per=BATCH_SIZE).execute(query)
        for row in rows.mappings():
            yield as_export_row(dict(row))


def task_attempts(database: Database, task_id: str) -> list[Row]:
    """
    Read the attempts of one task in the order in which they were made; the shape is `export`'s.

    Raises:
        SQLAlchemyError: The database is away.
    """
    query = select(attempts).where(attempts.c.task_id == task_id)
    with database.reading() as connection:
        rows = connection.execute(query.order_by(attempts.c.started_ms, attempts.c.attempt))
        return [as_export_row(dict(row)) for row in rows.mappings()]


def as_export_row(row: Row) -> Row:
    """Return the columns of a row as `export` yields them."""
    started = datetime.fromtimestamp(row["started_ms"] / 1000, UTC)
    values = {
        **row,
        "started_at": started.isoformat(timespec="milliseconds"),
        "cost_usd": _usd(row["cost_pico_usd"]),
    }
    return {name: values[name] for name in COLUMNS}


def _usd(pico_usd: int | None) -> str | None:
    if pico_usd is None:
        return None
    return f"{(Decimal(pico_usd) / PICO).normalize():f}"

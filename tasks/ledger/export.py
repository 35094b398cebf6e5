"""The attempts themselves, one at a time, as many as there are."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select

from tasks.ledger.database import Database
from tasks.ledger.summary import AttemptFilter
from tasks.ledger.tables import PICO, attempts

BATCH_SIZE = 1000
COLUMNS = (
    "started_at", *(column.name.replace("cost_pico_usd", "cost_usd") for column in attempts.columns)
)  # fmt: skip


def export(database: Database, where: AttemptFilter) -> Iterator[dict[str, Any]]:
    """
    Read attempts, the oldest first.

    Yields:
        COLUMNS and their values; `cost_usd` is a decimal text, `metadata` an object.

    Raises:
        SQLAlchemyError: The database is away.
    """
    wanted = select(attempts).where(*where.conditions_on_attempts()).order_by(attempts.c.started_ms)
    with database.reading() as connection:
        found = connection.execution_options(yield_per=BATCH_SIZE).execute(wanted)
        for row in found.mappings():
            yield as_export_row(dict(row))


def story(database: Database, task_id: str) -> list[dict[str, Any]]:
    """
    Read one task's attempts, in the order they were made; shape as in `export`.

    Raises:
        SQLAlchemyError: The database is away.
    """
    wanted = select(attempts).where(attempts.c.task_id == task_id)
    with database.reading() as connection:
        found = connection.execute(wanted.order_by(attempts.c.started_ms, attempts.c.attempt))
        return [as_export_row(dict(row)) for row in found.mappings()]


def as_export_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a row as `export` shows them."""
    pico = row.pop("cost_pico_usd")
    row["cost_usd"] = None if pico is None else f"{(Decimal(pico) / PICO).normalize():f}"
    at = datetime.fromtimestamp(row["started_ms"] / 1000, UTC)
    row["started_at"] = at.isoformat(timespec="milliseconds")
    return {name: row[name] for name in COLUMNS}

"""Daily sums, computed from the existing attempts."""

import math
from collections import Counter

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

DIMENSIONS = "provider, model, role, outcome, error"
SLOTS = [f"n{slot}" for slot in range(16)]
SUMS = (
    "attempts", "failovers", "unpriced", "cost_pico_usd", "input_tokens", "output_tokens",
    "cached_input_tokens", "cache_write_tokens", "reasoning_tokens",
)  # fmt: skip


def upgrade() -> None:
    """Create both tables and fill them."""
    op.create_table(
        "days",
        sa.Column("day", sa.Integer, nullable=False),
        *_dimensions(),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("day", *DIMENSIONS.split(", ")),
    )
    op.create_table(
        "day_times",
        sa.Column("day", sa.Integer, nullable=False),
        *_dimensions(),
        sa.Column("time", sa.String(16), nullable=False),
        sa.Column("sixteen", sa.Integer, nullable=False),
        *(sa.Column(slot, sa.BigInteger, nullable=False) for slot in SLOTS),
        sa.PrimaryKeyConstraint("day", *DIMENSIONS.split(", "), "time", "sixteen"),
    )
    op.execute(f"""
        INSERT INTO days (day, {DIMENSIONS}, {", ".join(SUMS)})
        SELECT started_ms / 86400000 AS day, {DIMENSIONS}, COUNT(*), SUM(failover),
            SUM(CASE WHEN price_source = 'unpriced' THEN 1 ELSE 0 END),
            COALESCE(SUM(cost_pico_usd), 0), SUM(input_tokens), SUM(output_tokens),
            SUM(cached_input_tokens), SUM(cache_write_tokens), SUM(reasoning_tokens)
        FROM attempts GROUP BY started_ms / 86400000, {DIMENSIONS}
    """)  # noqa: S608 - constants
    for time in ("latency_ms", "first_token_ms", "queued_ms"):
        _fill(time)


def _dimensions() -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(255), nullable=False) for name in DIMENSIONS.split(", ")]


def _fill(time: str) -> None:
    rows = op.get_bind().exec_driver_sql(f"""
        SELECT started_ms / 86400000, {DIMENSIONS}, {time}, COUNT(*) FROM attempts
        WHERE {time} IS NOT NULL AND outcome NOT IN ('rejected', 'cached')
        GROUP BY started_ms / 86400000, {DIMENSIONS}, {time}
    """)  # noqa: S608 - constants
    counts: dict[tuple[object, ...], Counter[str]] = {}
    for *key, ms, number in rows:
        bucket = 0
        if ms >= 1:
            bucket = 1 + math.ceil(math.log(ms, 1.02) - 1e-9)
        slots = counts.setdefault((*key, time, bucket // 16), Counter(dict.fromkeys(SLOTS, 0)))
        slots[SLOTS[bucket % 16]] += number
    names = ["day", *DIMENSIONS.split(", "), "time", "sixteen"]
    table = sa.table("day_times", *(sa.column(name) for name in [*names, *SLOTS]))
    inserted = [dict(zip(names, key, strict=True)) | slots for key, slots in counts.items()]
    if inserted:
        op.bulk_insert(table, inserted)

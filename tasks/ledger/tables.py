"""
The ledger's tables: one row for each attempt, and daily sums from which summaries are made.

Costs are whole numbers of pico-dollars (1e-12 US dollars). They are exact in every database, and a
price of 0.000001 dollars per million tokens still counts. Latencies are counted in buckets, each
2 % wider than the one before, so that a percentile read from them is off by 1 % at most (as in
DDSketch, Masson et al., VLDB 2019).
"""

import math

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

PICO = 10**12
GROWTH = 1.02
SLOTS = tuple(f"n{slot}" for slot in range(16))
"""A row holds 16 neighbouring buckets: a sixteenth of the rows, and of the time to sum them."""
METADATA = MetaData()
SCHEMA = "0003"
"""The newest migration; a ledger of this version needs none."""

DIMENSIONS = ("provider", "model", "role", "outcome", "error")
"""The columns by which rows are summed; `error` is empty for an attempt without an error."""
TOKENS = (
    "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens",
    "reasoning_tokens",
)  # fmt: skip
SUMS = ("attempts", "failovers", "unpriced", "cost_pico_usd", *TOKENS)
TIMES = ("latency_ms", "first_token_ms", "queued_ms")

attempts = Table(
    "attempts",
    METADATA,
    Column("task_id", String(255), nullable=False),
    Column("attempt", Integer, nullable=False),  # counts from 1
    # Unix time by Redis' clock; by the host's clock if the task was called directly, not queued.
    Column("started_ms", BigInteger, nullable=False),
    Column("role", String(64), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("model", String(255), nullable=False),
    Column("outcome", String(16), nullable=False),  # see `summary.OUTCOMES`
    Column("error", String(64), nullable=False),  # the class of the error, or empty
    Column("status", Integer),
    Column("latency_ms", BigInteger, nullable=False),
    Column("queued_ms", BigInteger, nullable=False),
    Column("first_token_ms", BigInteger),
    *(Column(kind, BigInteger) for kind in TOKENS),  # NULL: the provider did not count them
    Column("cost_pico_usd", BigInteger),  # NULL: unknown, or nothing to pay
    Column("price_source", String(32)),  # `unpriced`: to be paid, but the price is unknown
    Column("price_version", String(64)),
    Column("failover", Integer, nullable=False),  # 1: not the first target of the chain
    Column("request_id", String(255)),
    Column("worker", String(255), nullable=False),
    Column("roles_version", String(64), nullable=False),
    Column("metadata", JSON, nullable=False),  # an object
    Column("why", Text, nullable=False),
    # A task id that is queued again after its result has expired starts again at attempt 1.
    PrimaryKeyConstraint("task_id", "attempt", "started_ms"),
    Index("attempts_started_ms", "started_ms"),
)

days = Table(
    "days",
    METADATA,
    Column("day", Integer, nullable=False),  # days since 1970-01-01, UTC
    *(Column(name, String(255), nullable=False) for name in DIMENSIONS),
    *(Column(name, BigInteger, nullable=False) for name in SUMS),
    PrimaryKeyConstraint("day", *DIMENSIONS),
)

day_times = Table(
    "day_times",
    METADATA,
    Column("day", Integer, nullable=False),
    *(Column(name, String(255), nullable=False) for name in DIMENSIONS),
    Column("time", String(16), nullable=False),  # one of TIMES
    # The bucket // 16. The column keeps the name that it has in existing ledgers.
    Column("sixteen", Integer, key="bucket_group", nullable=False),
    *(Column(slot, BigInteger, nullable=False) for slot in SLOTS),  # attempts in each bucket
    PrimaryKeyConstraint("day", *DIMENSIONS, "time", "bucket_group"),
)

versions = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Alembic's own table."""


def bucket_of(ms: int) -> int:
    """Return the bucket of a time; bucket 0 holds times under a millisecond."""
    if ms < 1:
        return 0
    return 1 + math.ceil(math.log(ms, GROWTH) - 1e-9)


def middle_of(bucket: int) -> float:
    """Return the time in ms that represents a bucket: within 1 % of every time in the bucket."""
    if bucket == 0:
        return 0.0
    return 2 * GROWTH ** (bucket - 1) / (1 + GROWTH)

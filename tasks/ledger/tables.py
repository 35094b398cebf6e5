"""
The ledger's tables: one row for each attempt, and sums by day that a summary is made of.

Costs are whole numbers of pico-dollars (1e-12 US dollars): exact in every database, and a price of
0.000001 dollars per million tokens still counts. Latencies are counted in buckets, each 2 % longer
than the last, so that a percentile read from them is off by 1 % at most (as in DDSketch, Masson et
al., VLDB 2019).
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
"""Neighbouring buckets share a row: a sixteenth of the rows, and of the time to add them up."""
METADATA = MetaData()
SCHEMA = "0003"
"""The newest migration; a ledger of this version is used as it is."""

DIMENSIONS = ("provider", "model", "role", "outcome", "error")
"""What rows are summed by; `error` is empty where there is none."""
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
    Column(
        "started_ms", BigInteger, nullable=False
    ),  # Unix time, by Redis' clock; of a direct call by the host's
    Column("role", String(64), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("model", String(255), nullable=False),
    Column("outcome", String(16), nullable=False),  # see `summary.OUTCOMES`
    Column("error", String(64), nullable=False),  # its class; empty if there is none
    Column("status", Integer),
    Column("latency_ms", BigInteger, nullable=False),
    Column("queued_ms", BigInteger, nullable=False),
    Column("first_token_ms", BigInteger),
    *(Column(kind, BigInteger) for kind in TOKENS),  # NULL: the provider did not count them
    Column("cost_pico_usd", BigInteger),  # NULL: not known, or nothing to pay
    Column("price_source", String(32)),  # `unpriced`: there was something to pay
    Column("price_version", String(64)),
    Column("failover", Integer, nullable=False),  # 1: not the first target of the chain
    Column("request_id", String(255)),
    Column("worker", String(255), nullable=False),
    Column("roles_version", String(64), nullable=False),
    Column("metadata", JSON, nullable=False),  # an object
    Column("why", Text, nullable=False),
    # An id that is queued again long after its result has expired begins to count anew.
    PrimaryKeyConstraint("task_id", "attempt", "started_ms"),
    Index("attempts_started_ms", "started_ms"),
)

days = Table(
    "days",
    METADATA,
    Column("day", Integer, nullable=False),  # since 1970-01-01, UTC
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
    Column("sixteen", Integer, key="bucket_group", nullable=False),  # bucket // 16
    *(Column(slot, BigInteger, nullable=False) for slot in SLOTS),  # attempts in each of them
    PrimaryKeyConstraint("day", *DIMENSIONS, "time", "bucket_group"),
)

versions = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Alembic's own."""


def bucket_of(ms: int) -> int:
    """Return the bucket of a time; 0 holds what is under a millisecond."""
    return 0 if ms < 1 else 1 + math.ceil(math.log(ms, GROWTH) - 1e-9)


def middle_of(bucket: int) -> float:
    """Return the time that stands for a bucket, in ms: at most 1 % off for all in it."""
    return 0.0 if bucket == 0 else 2 * GROWTH ** (bucket - 1) / (1 + GROWTH)

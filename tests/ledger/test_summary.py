"""A summary equals the sums of the attempts, for every filter and grouping."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ledger.attempt_filter import AttemptFilter
from tasks.ledger.database import Database
from tasks.ledger.export import export
from tasks.ledger.summary import GROUPS, summarise
from tasks.ledger.tables import bucket_of, middle_of
from tests.support.ledger_rows import DAY_MS, START_MS, random_rows
from tests.support.postgres import emptied

ROWS = [json.loads(row) for row in random_rows(600, 5)]


@pytest.fixture(scope="module")
def filled(_postgres_url: str) -> Iterator[list[Database]]:
    """Both databases, with the same rows."""
    databases = [Database("sqlite://"), Database(emptied(_postgres_url))]
    for database in databases:
        database.add(random_rows(600, 5))
    yield databases
    for database in databases:
        database.close()


moments = st.integers(START_MS - DAY_MS, START_MS + 4 * DAY_MS)
edges = st.sampled_from([START_MS + n * DAY_MS for n in range(-1, 5)])
wheres = st.builds(
    AttemptFilter,
    provider=st.sampled_from([None, "claude", "gpt"]),
    role=st.sampled_from([None, "coder"]),
    model=st.sampled_from([None, "m"]),
    outcome=st.sampled_from([None, None, "succeeded", "failed", "abandoned", "rejected", "cached"]),
    since_ms=moments | edges | st.just(0),
    until_ms=moments | edges | st.just(2**53),
    metadata=st.sampled_from(
        [{}, {}, {"team": "a"}, {"n": "2"}, {"team": "b", "n": "0"}, {"x": "1"}]
    ),
)


def fits(row: dict[str, Any], where: AttemptFilter) -> bool:
    words = ("provider", "model", "role", "outcome")
    return (
        all(getattr(where, word) in (None, row[word]) for word in words)
        and where.since_ms <= row["started_ms"] < where.until_ms
        and all(str(row["metadata"].get(k)) == v for k, v in where.metadata.items())
    )


@given(where=wheres, by=st.lists(st.sampled_from(GROUPS), unique=True))
@settings(max_examples=150, deadline=None)
def test_a_summary_equals_the_sum_of_its_attempts(
    filled: list[Database], where: AttemptFilter, by: list[str]
) -> None:
    """For every filter, time and group; exact, except percentiles, which are within 1 %."""
    wanted: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in ROWS:
        if fits(row, where):
            wanted.setdefault(tuple(day_of(row) if b == "day" else row[b] for b in by), []).append(
                row
            )

    for database in filled:
        lines = summarise(database, by, where)

        assert [line.group for line in lines] == sorted(wanted)
        for line in lines:
            check(
                line.as_dict(by), wanted[line.group], apart="outcome" in by or bool(where.outcome)
            )


def day_of(row: dict[str, Any]) -> str:
    return f"2024-10-{4 + (row['started_ms'] - START_MS) // DAY_MS:02}"


def check(summary: dict[str, Any], rows: list[dict[str, Any]], *, apart: bool) -> None:
    outcomes = Counter(row["outcome"] for row in rows)
    calls = len(rows) - outcomes["rejected"] - outcomes["cached"]
    assert summary["attempts"] == len(rows)
    assert {name: summary[name] for name in outcomes} == outcomes
    assert summary["success_rate"] == (outcomes["succeeded"] / calls if calls else None)
    assert summary["errors"] == Counter(
        row["error"] for row in rows if row["error"] and row["outcome"] != "rejected"
    )
    answered = [row for row in rows if row["outcome"] == "succeeded"]
    moved = sum(row["failover"] for row in answered)
    assert summary["failover_share"] == (moved / len(answered) if answered else None)
    for kind in ("input_tokens", "output_tokens", "cached_input_tokens"):
        assert summary[kind] == sum(row[kind] for row in rows)
    assert Decimal(summary["cost_usd"]) == sum(Decimal(row["cost_usd"] or 0) for row in rows)
    assert summary["unpriced"] == sum(row["price_source"] == "unpriced" for row in rows)
    timed = (
        [row for row in rows if row["outcome"] not in ("rejected", "cached")] if apart else answered
    )
    for time in ("latency", "queued"):
        times = sorted(row[f"{time}_ms"] for row in timed)
        for share in (50, 95, 99):
            summary_ms = summary[f"{time}_p{share}_ms"]
            if times:
                exact = times[math.ceil(len(times) * share / 100) - 1]
                assert abs(summary_ms - exact) <= 0.01 * exact + 0.5
            else:
                assert summary_ms is None


def test_an_export_is_complete_and_in_order(filled: list[Database]) -> None:
    """Each attempt, the oldest first."""
    for database in filled:
        rows = list(export(database, AttemptFilter(role="coder")))

        assert len(rows) == sum(row["role"] == "coder" for row in ROWS)
        assert [row["started_ms"] for row in rows] == sorted(row["started_ms"] for row in rows)


def test_a_bucket_stands_for_its_times_within_one_percent() -> None:
    """From a millisecond to a day."""
    for ms in [*range(1, 5000), *range(5000, 86_400_000, 98_765)]:
        assert abs(middle_of(bucket_of(ms)) - ms) <= 0.01 * ms
    assert middle_of(bucket_of(0)) == 0

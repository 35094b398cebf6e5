"""docs/scale.md says what its arithmetic comes to, of what was measured."""

import json
from dataclasses import replace

import pytest

from benchmarks import capacity
from benchmarks.capacity import BLOCKS, INPUTS, PAGE, Costs, Plan, written

COSTS = Costs(json.loads(INPUTS.read_text()))


def test_the_tables_are_those_of_the_measured_costs() -> None:
    """`python -m benchmarks.capacity --docs` writes them."""
    page = PAGE.read_text()

    assert written(page, COSTS) == page
    assert all(f"<!-- {name} -->" in page for name in BLOCKS)


def test_what_the_arithmetic_takes_for_granted_is_what_the_code_does() -> None:
    """Other intervals would make other tables."""
    from tasks.delivery.lease_keeper import RENEWAL_INTERVAL_S
    from workers.metrics.fleet import SNAPSHOT_MS

    assert capacity.RENEWAL_INTERVAL_S == RENEWAL_INTERVAL_S
    assert capacity.SEEN_S * 1000 == SNAPSHOT_MS


def test_littles_law() -> None:
    """A hundred a second, ten seconds each, are a thousand at once; four fifths of a worker's."""
    plan = Plan(rate=100, latency=10, concurrency=100)

    assert plan.in_flight == 1_000
    assert plan.fleet == 13


@pytest.mark.parametrize("name", ["completions", "leases", "workers"])
def test_load_is_proportional(name: str) -> None:
    """Twice the fleet is twice the load: nothing here grows with a square."""
    plan = Plan(rate=1_000, workers=500)

    once, twice = COSTS.cores(plan), COSTS.cores(replace(plan, rate=2_000, workers=1_000))

    assert twice[name] == pytest.approx(2 * once[name])


def test_scrapes_grow_with_workers_and_not_with_their_square() -> None:
    """One look does for all."""
    few, many = (COSTS.cores(Plan(workers=number))["scrapes"] for number in (1_000, 10_000))

    assert many == pytest.approx(10 * few)


def test_a_breaker_is_not_asked_more_often_than_calls_are_made() -> None:
    """A fleet that does little asks for each call, and no more."""
    idle = COSTS.cores(Plan(rate=0.001, workers=1000))["breakers"]
    busy = COSTS.cores(Plan(rate=100_000, workers=1000))["breakers"]

    assert idle < 0.01
    assert busy == pytest.approx(1000 * (3 / 0.8 * COSTS.us("admit") + COSTS.us("ping") / 5) / 1e6)

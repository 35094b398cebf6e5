"""The rule of admission stands once in Lua and once in Python: the two must agree."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from breaker.local_storage import LocalStorage
from breaker.state import Rules
from tests.breaker.conftest import BEGINNING_US, Bench

NOW_MS = BEGINNING_US // 1000

rules = st.builds(
    Rules, success_threshold=st.integers(1, 4), max_probes=st.integers(1, 4), lease_s=st.just(10.0)
)
deadlines_ms = st.sampled_from([0, NOW_MS - 1, NOW_MS, NOW_MS + 1, NOW_MS + 30_000])


@st.composite
def hashes(draw: Any) -> dict[str, Any]:
    """A breaker as it may lie in Redis, odd ones included."""
    fields: dict[str, Any] = {
        "state": draw(st.sampled_from(["closed", "open", "half-open"])),
        "generation": 7,
        "failures": draw(st.integers(0, 9)),
        "successes": draw(st.integers(0, 5)),
        "open_until_ms": draw(deadlines_ms),
        "held_until_ms": draw(deadlines_ms),
    }
    if forced := draw(st.sampled_from(["", "open", "closed"])):
        fields["forced"] = forced
    for number, expiry_ms in enumerate(draw(st.lists(deadlines_ms, max_size=5))):
        fields[f"probe:{number}"] = expiry_ms
    return fields


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fields=hashes(), rules=rules)
def test_python_admits_what_the_script_admits(
    shared: Bench, fields: dict[str, Any], rules: Rules
) -> None:
    """On a view of the same state, at the same time, for a token without a lease."""
    assert shared.redis
    shared.rules = rules
    shared.redis.delete("breaker:{x}", "breaker:{x}:events")
    shared.redis.hset("breaker:{x}", mapping=fields)
    view = shared.peek()

    granted = shared.admit("new")

    assert view.admits(rules) == bool(granted.accepted)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fields=hashes(), rules=rules)
def test_a_breaker_in_memory_admits_what_the_script_admits(
    shared_fakeredis: Bench, fields: dict[str, Any], rules: Rules
) -> None:
    """Seeded with the view, and with the probes that run here."""
    assert shared_fakeredis.redis
    shared_fakeredis.rules = rules
    shared_fakeredis.redis.delete("breaker:{x}", "breaker:{x}:events")
    shared_fakeredis.redis.hset("breaker:{x}", mapping=fields)
    view = shared_fakeredis.peek()
    local = LocalStorage(clock=lambda: 1000.0)
    local.seed(view, 0.0, [f"running:{number}" for number in range(view.probes)], rules)

    granted = shared_fakeredis.admit("new")

    assert bool(local.admit("x", rules, "new").accepted) == bool(granted.accepted)


def test_every_call_is_admitted_only_by_a_closed_breaker(bench: Bench) -> None:
    """A hold, a half-open period and an open time leave room for some calls at most."""
    assert bench.run("success").admits_all
    assert not bench.run("neutral", retry_after_s=5).admits_all

    bench.tick(5)
    assert bench.peek().admits_all
    bench.trip()
    assert not bench.peek().admits_all
    bench.tick(bench.rules.reset_timeout_s)
    assert bench.peek().admits(bench.rules)
    assert not bench.peek().admits_all

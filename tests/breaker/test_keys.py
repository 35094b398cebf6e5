"""What stands in Redis, and what becomes of it when it is lost, mangled or held back."""

import pickle
import random

import pytest
import redis

from breaker.fleet import Breakers
from breaker.state import Rules
from tests.breaker.conftest import CLOCK, Bench


def test_admitting_in_closed_writes_nothing(shared: Bench) -> None:
    """A healthy provider costs Redis no writes but those of failures."""
    shared.run("success")
    before = shared.hash()

    for _ in range(3):
        shared.run("success")
        shared.run("neutral")

    assert shared.hash() == before


def test_the_hash_has_the_fields_of_the_contract(shared: Bench) -> None:
    """redis-cli is enough to see everything; no field expires."""
    shared.half_open("a")

    assert shared.hash().keys() == {
        "state", "failures", "successes", "generation", "open_until_ms", "open_for_ms", "since_ms",
        "trips", "reason", "who", "stale", "held_until_ms", "held_for_ms", "seq", "probe:a",
    }  # fmt: skip
    assert shared.hash()["generation"].isdigit()
    assert shared.redis.ttl("breaker:{x}") == -1


@pytest.mark.parametrize(
    "mangle",
    [
        lambda r: r.delete("breaker:{x}"),
        lambda r: (r.delete("breaker:{x}"), r.set("breaker:{x}", "a string")),
        lambda r: r.hset("breaker:{x}", "state", "ajar"),
        lambda r: r.hset("breaker:{x}", "generation", "many"),
        lambda r: r.hset("breaker:{x}", "failures", "nan"),
        lambda r: r.hset("breaker:{x}", "successes", "-1"),
        lambda r: r.hset("breaker:{x}", "open_until_ms", "inf"),
        lambda r: r.hdel("breaker:{x}", "state"),
    ],
)
def test_a_lost_or_mangled_hash_is_rebuilt_as_closed(shared: Bench, mangle: object) -> None:
    """With a new generation, so that answers from its earlier life are stale."""
    old = shared.trip()
    mangle(shared.redis)  # type: ignore[operator]
    assert shared.peek().generation == 0

    late = shared.record("t", old.generation, "failure")

    assert (late.accepted, late.rebuilt, late.view.state) == (0, True, "closed")
    assert (late.view.failures, late.view.stale) == (0, 1)
    assert not shared.admit().rebuilt


def test_a_rebuilt_hash_keeps_the_operators_word(shared: Bench) -> None:
    """`forced` outlives the fields around it."""
    shared.trip()
    shared.redis.hset("breaker:{x}", mapping={"state": "ajar", "forced": "open"})

    assert shared.admit().accepted == 0
    assert (shared.hash()["state"], shared.hash()["forced"]) == ("closed", "open")


def test_a_hash_written_by_hand_in_the_words_of_the_contract_is_obeyed(shared: Bench) -> None:
    """The fields we added to it may be missing."""
    until_ms = shared.us // 1000 + 5_000
    shared.redis.hset(
        "breaker:{x}",
        mapping={
            "state": "open", "failures": 5, "successes": 0, "generation": 7,
            "open_until_ms": until_ms,
        },
    )  # fmt: skip

    assert shared.admit().wait_s == 5


def test_retry_after_holds_the_provider_back_without_breaking(bench: Bench) -> None:
    """A 429 alone is no failure of health: closed stays closed, and nothing is granted."""
    view = bench.run("neutral", retry_after_s=20)
    assert (view.state, view.held_for_s, view.reason) == ("closed", 20, "throttled")

    refused = bench.admit()
    assert (refused.accepted, refused.wait_s) == (0, 20)

    bench.tick(20)
    assert bench.admit().accepted
    assert (bench.peek().reason, bench.peek().held_for_s) == ("", 0)


def test_an_earlier_deadline_never_shortens_a_later_one(bench: Bench) -> None:
    """Of several Retry-After the latest deadline wins."""
    granted = [bench.admit(token) for token in "abc"]
    for (token, asked_s), grant in zip([("a", 20), ("b", 5), ("c", 21)], granted, strict=True):
        bench.record(token, grant.view.generation, "neutral", retry_after_s=asked_s)

    assert bench.peek().held_for_s == 21


@pytest.mark.parametrize("asked_s", [float("inf"), 10**9])
def test_retry_after_is_capped(bench: Bench, asked_s: float) -> None:
    """A provider's slip must not shut it out for a day."""
    assert bench.run("neutral", retry_after_s=asked_s).held_for_s == 3600


@pytest.mark.parametrize("asked_s", [None, 0, -5, float("nan")])
def test_a_senseless_retry_after_holds_nothing_back(bench: Bench, asked_s: float | None) -> None:
    """None, past and nonsense are no deadline."""
    assert bench.run("neutral", retry_after_s=asked_s).held_for_s == 0


def test_the_first_answer_after_a_hold_clears_it_from_the_hash(shared: Bench) -> None:
    """`throttled` does not stay in sight when it is over; an answer during the hold leaves it."""
    inflight = shared.admit("inflight")
    shared.run("neutral", retry_after_s=20)
    shared.record("inflight", inflight.view.generation, "success")
    assert shared.hash()["reason"] == "throttled"

    shared.tick(20)
    shared.run("success")

    assert (shared.hash()["reason"], shared.hash()["held_until_ms"]) == ("", "0")


def test_a_held_back_probe_delays_the_others(bench: Bench) -> None:
    """In half-open too nobody is let through before the deadline, but a grant stays one."""
    first = bench.half_open("a")
    bench.admit("b")
    bench.record("a", first.view.generation, "neutral", retry_after_s=5)

    assert (bench.admit("c").accepted, bench.admit("c").wait_s) == (0, 5)
    assert bench.admit("b").accepted == 1
    bench.tick(5)
    assert bench.admit("c").accepted == 1


def test_a_hold_outlives_the_closing(bench: Bench) -> None:
    """Closing says the provider is well, not that it may be rushed."""
    bench.half_open("a")
    bench.run("success", "a")

    view = bench.run("success", "b", retry_after_s=9)

    assert (view.state, view.held_for_s, view.reason) == ("closed", 9, "throttled")


def test_the_open_time_escalates_up_to_its_cap(bench: Bench) -> None:
    """Each trip in a row multiplies it; off by default."""
    bench.goes_by(open_factor=3, open_max_s=100)
    open_s = [bench.trip().open_for_s]
    for token in "abc":
        bench.tick(open_s[-1])
        open_s.append(bench.run("failure", token).open_for_s)

    assert open_s == [30, 90, 100, 100]


def test_a_stable_time_in_closed_forgives_a_trip(bench: Bench) -> None:
    """Each `stable_s` spent closed takes one trip off the row."""
    bench.goes_by(open_factor=2)
    bench.half_open("a")
    bench.run("failure", "a")
    bench.tick(60)
    bench.run("success", "b")
    bench.run("success", "c")
    assert bench.peek().trips == 2

    bench.tick(300)

    assert bench.trip().trips == 2


def test_jitter_only_adds_and_within_its_share(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client draws it; up to that share of the open time is added."""
    bench.goes_by(open_jitter=0.5)
    monkeypatch.setattr(random, "random", lambda: 0.5)

    assert bench.trip().open_for_s == 37.5


def test_manual_transitions_are_told_like_any_other(shared: Bench) -> None:
    """open, half-open, closed by hand: a new generation and an entry, no trip."""
    for to in ("open", "half-open", "closed"):
        shared.store.force("x", shared.rules, to=to)

    told = [(e["from"], e["to"], e["reason"], e["trips"]) for e in shared.store.events("x", 9)]
    assert told == [
        ("half-open", "closed", "manual", "0"),
        ("open", "half-open", "manual", "0"),
        ("closed", "open", "manual", "0"),
    ]


def test_closing_by_hand_forgets_failures_trips_and_hold(shared: Bench) -> None:
    """A closed breaker with nothing to forget makes no transition."""
    shared.run("failure")
    shared.run("neutral", retry_after_s=60)

    view = shared.store.force("x", shared.rules, to="closed").view
    again = shared.store.force("x", shared.rules, to="closed")

    assert (view.failures, view.held_for_s, view.reason, view.trips) == (0, 0, "", 0)
    assert (again.transitioned, len(shared.store.events("x", 9))) == (False, 1)


def test_opening_by_hand_opens_for_one_open_time_from_now(shared: Bench) -> None:
    """Also when it is open already."""
    shared.trip()
    shared.tick(20)

    assert shared.store.force("x", shared.rules, to="open").view.open_for_s == 30


def test_the_stream_is_bounded(shared: Bench) -> None:
    """About 1,000 entries a breaker."""
    for _ in range(650):
        shared.store.force("x", shared.rules, to="open")
        shared.store.force("x", shared.rules, to="closed")

    assert 1000 <= shared.redis.xlen("breaker:{x}:events") < 1200


def test_scripts_forgotten_by_the_server_are_sent_again(shared: Bench) -> None:
    """SCRIPT FLUSH or a failover costs one more trip, no outcome."""
    shared.run("failure")
    shared.redis.script_flush()

    assert shared.run("failure").failures == 2
    shared.redis.script_flush()
    shared.store.add_name("x")
    assert [view.failures for view in shared.store.peek_all()] == [2]


def test_decoded_and_raw_clients_read_the_same(shared: Bench) -> None:
    """`decode_responses` is the application's choice."""
    shared.trip()
    kwargs = shared.redis.get_connection_kwargs() | {"decode_responses": True}
    pool = redis.ConnectionPool(
        connection_class=shared.redis.connection_pool.connection_class, **kwargs
    )
    decoded = type(shared.store)(redis.Redis(connection_pool=pool), shared.store.scripts)

    assert decoded.peek("x", Rules()) == shared.peek()
    assert decoded.events("x", 5) == shared.store.events("x", 5)
    pool.disconnect()


def test_both_keys_of_a_breaker_share_a_slot_and_names_cannot_part_them(
    breakers: Breakers,
) -> None:
    """The name is the hash tag, so it may have no braces."""
    with pytest.raises(ValueError, match="without spaces and braces"):
        breakers.get("a}b{c")
    with pytest.raises(ValueError, match="without spaces and braces"):
        breakers.get("")


def test_rules_name_all_their_faults_at_once() -> None:
    """A rule out of range is refused where it is written, not met in production."""
    with pytest.raises(ValueError, match=r"fail_max is 0.*open_factor is 0\.5.*lease_s is nan"):
        Rules(fail_max=0, open_factor=0.5, lease_s=float("nan"))


def test_a_view_can_be_sent_to_another_process(shared: Bench) -> None:
    """`inspect breakers` of a worker answers with these."""
    view = shared.run("failure")

    assert pickle.loads(pickle.dumps(view)) == view


def test_the_clock_is_read_once_and_nowhere_but_in_redis(shared: Bench) -> None:
    """Moving the server's clock moves everything; the client's is never asked."""
    shared.trip()
    shared.redis.set(CLOCK, shared.us + 29_999_000)
    assert shared.admit().wait_s == pytest.approx(0.001)

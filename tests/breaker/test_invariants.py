"""I1 to I18 of docs/breaker.md, one by one; `bench` is Redis, fakeredis and the local store."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from breaker.circuit import BreakerOpen
from breaker.failover import FailoverStorage
from breaker.fleet import Breakers
from tests.breaker.conftest import Bench


def test_i1_failures_count_the_run_since_the_last_success(bench: Bench) -> None:
    """In closed, failures = failures of this generation since its last success."""
    for _ in range(4):
        bench.run("failure")
    assert bench.peek().failures == 4

    bench.run("success")
    assert bench.peek().failures == 0

    for _ in range(4):
        bench.run("failure")
    assert (bench.peek().state, bench.peek().failures) == ("closed", 4)


def test_i1_failures_begin_anew_with_each_closed_period(bench: Bench) -> None:
    """Entering closed sets the run to nothing."""
    bench.half_open("a")
    bench.run("success", "a")

    bench.run("success", "b")

    assert (bench.peek().state, bench.peek().failures) == ("closed", 0)


def test_i2_opens_in_the_very_record_that_fills_the_run(bench: Bench) -> None:
    """closed → open only in the record that makes failures = fail_max."""
    states = [bench.run("failure", reason="Overloaded").state for _ in range(5)]

    view = bench.peek()
    assert states == ["closed"] * 4 + ["open"]
    assert (view.failures, view.reason, view.trips) == (5, "Overloaded", 1)


def test_i2_one_proof_opens_at_once(bench: Bench) -> None:
    """An error that trips at once needs no run, and is counted like any failure."""
    bench.run("failure")

    view = bench.run("failure", trip=True, reason="AuthenticationFailed")

    assert (view.state, view.failures, view.reason) == ("open", 2, "AuthenticationFailed")


@pytest.mark.parametrize("outcome", ["success", "neutral"])
def test_i2_trip_means_nothing_without_a_failure(bench: Bench, outcome: str) -> None:
    """Only a failure can be proof."""
    assert bench.run(outcome, trip=True).state == "closed"


def test_i3_open_grants_nothing_and_hears_nothing_until_due(bench: Bench) -> None:
    """While open and not due: no grant, and no outcome of any generation changes anything."""
    before = bench.admit("late")
    opened = bench.trip()
    bench.tick(29.999)

    refused = bench.admit("b")
    for generation in (before.view.generation, opened.generation):
        for outcome in ("failure", "success", "neutral"):
            bench.record("late", generation, outcome, retry_after_s=500)

    assert (refused.accepted, refused.wait_s) == (0, pytest.approx(0.001, abs=1e-6))
    after = bench.peek()
    assert (after.state, after.failures, after.generation) == ("open", 5, opened.generation)
    assert after.open_for_s == pytest.approx(0.001, abs=1e-6)
    bench.tick(0.001)
    assert bench.admit("b").accepted


def test_i3_retry_after_prolongs_the_open_time_it_comes_with(bench: Bench) -> None:
    """On a trip the longer of planned open time and hold-back counts, and the hold is over."""
    bench.run("neutral", retry_after_s=0.001)
    bench.tick(1)
    for _ in range(4):
        bench.run("failure")

    view = bench.run("failure", retry_after_s=90)

    assert (view.open_for_s, view.held_for_s) == (90, 0)


def test_i4_half_open_lets_a_bounded_few_through(bench: Bench) -> None:
    """Live leases never exceed min(max_probes, threshold - successes)."""
    bench.goes_by(success_threshold=3, max_probes=2)
    bench.half_open("a")

    assert bench.admit("b").accepted == 1
    refused = bench.admit("c")
    assert (refused.accepted, refused.wait_s, refused.view.probes) == (0, 10.0, 2)

    bench.run("success", "a")
    bench.run("success", "b")
    assert bench.admit("c").accepted == 1
    assert bench.admit("d").accepted == 0


def test_i4_a_refusal_tells_when_the_next_lease_ends(bench: Bench) -> None:
    """The wait is the time to the earliest expiry."""
    bench.half_open("a")
    bench.tick(4)
    bench.admit("b")

    assert bench.admit("c").wait_s == pytest.approx(6)


def test_i4_a_client_with_a_smaller_threshold_still_gets_one_probe(bench: Bench) -> None:
    """Clients that disagree on the threshold must not lock a breaker half-open for ever."""
    bench.goes_by(success_threshold=3)
    bench.half_open("a")
    bench.run("success", "a")
    bench.run("success", "b")

    bench.goes_by(success_threshold=2)

    assert bench.run("success", "c").state == "closed"


def test_i5_closes_only_on_the_last_of_the_successes(bench: Bench) -> None:
    """half-open → closed on the threshold-th success, each from its own lease."""
    first = bench.half_open("a")
    assert bench.run("success", "a").state == "half-open"

    again = bench.record("a", first.view.generation, "success")
    assert (again.accepted, bench.peek().successes) == (0, 1)

    view = bench.run("success", "b")
    assert (view.state, view.successes, view.reason) == ("closed", 0, "")


def test_i5_a_success_after_its_lease_does_not_count(bench: Bench) -> None:
    """An expired lease is no lease, to the millisecond."""
    granted = bench.half_open("a")
    bench.tick(10)

    late = bench.record("a", granted.view.generation, "success")

    assert (late.accepted, late.view.successes, late.view.stale) == (0, 0, 1)


@pytest.mark.parametrize("outcome", ["success", "failure", "neutral"])
def test_i6_an_answer_from_an_older_generation_is_only_counted_as_stale(
    bench: Bench, outcome: str
) -> None:
    """The late answers of calls begun before a trip change nothing."""
    old = bench.admit("old")
    bench.half_open("a")

    late = bench.record("old", old.view.generation, outcome, retry_after_s=60)

    assert (late.accepted, late.view.stale) == (0, 1)
    assert (late.view.state, late.view.successes, late.view.probes) == ("half-open", 0, 1)
    assert (late.view.failures, late.view.held_for_s) == (5, 0)


def test_i7_neutral_changes_no_count(bench: Bench) -> None:
    """Bad requests, cancellations and our own bugs say nothing about the provider."""
    for _ in range(3):
        bench.run("failure")

    for _ in range(10):
        bench.run("neutral")

    assert (bench.peek().state, bench.peek().failures) == ("closed", 3)


def test_i7_neutral_gives_the_lease_back(bench: Bench) -> None:
    """A probe that learnt nothing leaves its slot to another."""
    bench.half_open("a")
    bench.admit("b")

    view = bench.run("neutral", "a")

    assert (view.state, view.successes, view.failures, view.probes) == ("half-open", 0, 5, 1)
    assert bench.admit("c").accepted == 1


def test_i8_a_failed_probe_opens_and_drops_all_leases(bench: Bench) -> None:
    """One failure under a live lease is enough, and the other probes become stale."""
    bench.half_open("a")
    other = bench.admit("b")

    view = bench.run("failure", "a", reason="ServerError")

    assert (view.state, view.probes, view.trips, view.reason) == ("open", 0, 2, "ServerError")
    assert view.open_for_s == 30
    assert bench.record("b", other.view.generation, "success").accepted == 0


def test_i8_a_success_ends_the_run_of_failures(bench: Bench) -> None:
    """After a successful probe a failing one is the first of a new run, and still opens."""
    bench.half_open("a")
    bench.run("success", "a")

    view = bench.run("failure", "b")

    assert (view.state, view.failures) == ("open", 1)


def test_i9_leases_exist_only_in_half_open(shared: Bench) -> None:
    """No probe field outlives the half-open period; not even one written by hand."""
    shared.redis.hset("breaker:{x}", "probe:ghost", 10**15)
    shared.half_open("a")
    shared.admit("b")
    assert {f for f in shared.hash() if f.startswith("probe:")} == {"probe:a", "probe:b"}

    shared.run("success", "a")
    shared.run("success", "b")

    assert not [field for field in shared.hash() if field.startswith("probe:")]


def test_i10_generation_grows_with_every_transition(bench: Bench) -> None:
    """Strictly, also while the clock stands still or steps back."""
    generations = [bench.admit("t").view.generation]
    generations.append(bench.trip().generation)
    bench.tick(30)
    generations.append(bench.admit("a").view.generation)
    if bench.redis:
        bench.tick(-3600)
    generations.append(bench.run("failure", "a").generation)

    assert generations == sorted(set(generations))


@pytest.mark.parametrize("clock_s", [1, -3600])
def test_i10_generation_grows_across_the_loss_of_the_key(shared: Bench, clock_s: int) -> None:
    """By the clock, and by the event stream if that survived a clock behind."""
    old = shared.trip()
    shared.redis.delete("breaker:{x}")
    shared.tick(clock_s)

    new = shared.admit("t")

    assert (new.accepted, new.rebuilt, new.view.state) == (1, True, "closed")
    assert new.view.generation > old.generation


def test_i11_a_view_never_goes_back(shared: Bench) -> None:
    """Answers that overtake each other on their way do not turn the view back."""
    storage = FailoverStorage(shared.store)
    first = shared.admit().view
    second = shared.run("failure")
    third = shared.trip()

    for view in (third, first, second):
        storage.view_cache.keep(view, 0.0)

    assert storage.views() == [third]


def test_i12_a_clock_that_steps_back_lengthens_no_open_time(shared: Bench) -> None:
    """After a failover to a slower clock the open time is at most what was planned."""
    shared.trip()
    shared.tick(-3600)

    assert shared.admit().wait_s == 30
    shared.tick(30)
    assert shared.admit().accepted


def test_i12_a_clock_that_steps_back_lengthens_no_hold(shared: Bench) -> None:
    """Nor is the provider held back for longer than it asked."""
    shared.run("neutral", retry_after_s=20)
    shared.tick(-3600)

    assert shared.admit().wait_s == 20
    shared.tick(20)
    assert shared.admit().accepted


def test_i12_a_clock_that_steps_back_lengthens_no_lease(shared: Bench) -> None:
    """A dead prober costs its lease, whatever the clock does."""
    shared.half_open("a")
    shared.admit("b")
    shared.tick(-3600)

    assert shared.admit("c").wait_s == 10
    shared.tick(10)
    assert shared.admit("c").accepted


def test_i13_asking_again_takes_no_second_slot(bench: Bench) -> None:
    """The same token is the same grant; admit may be repeated."""
    bench.half_open("a")

    again = bench.admit("a")

    assert (again.accepted, again.view.probes) == (1, 1)


def test_i13_a_permit_counts_once(breakers: Breakers) -> None:
    """A second word about the same call is ignored."""
    breaker = breakers.get("x")
    permit = breaker.admit()

    breaker.record(permit, "failure")
    breaker.record(permit, "failure")

    assert breaker.fail_counter == 1


def test_i14_dead_probers_cost_one_lease(bench: Bench) -> None:
    """However many die, one living client whose calls succeed gets back to closed."""
    bench.half_open("dead-1")
    bench.admit("dead-2")
    assert bench.admit("living").accepted == 0

    bench.tick(10)

    assert bench.run("success", "living").state == "half-open"
    assert bench.run("success", "living-2").state == "closed"


def test_i14_a_renewed_lease_lives_on_and_a_dead_one_does_not(bench: Bench) -> None:
    """Renewing begins a lease again, but never raises the dead."""
    first = bench.half_open("a")
    bench.admit("b")
    bench.tick(6)
    assert bench.store.renew("x", bench.rules, ["a", "unknown"]).accepted == 1

    bench.tick(6)

    assert bench.store.renew("x", bench.rules, ["a", "b"]).accepted == 1
    assert bench.record("a", first.view.generation, "success").accepted == 1


def test_i16_forced_overrides_without_touching_the_state(shared: Bench) -> None:
    """By hand in redis-cli, obeyed at once, ended by HDEL; all other fields stay."""
    shared.trip()
    before = shared.hash()

    shared.redis.hset("breaker:{x}", "forced", "closed")
    assert shared.admit("t").accepted == 1
    shared.redis.hset("breaker:{x}", "forced", "open")
    shared.tick(3600)
    assert shared.admit("t").accepted == 0
    shared.redis.hdel("breaker:{x}", "forced")

    assert shared.hash() == before
    assert shared.admit("t").view.state == "half-open"


def test_i16_forced_open_holds_in_closed_and_forced_closed_ignores_a_hold(shared: Bench) -> None:
    """An operator's word goes before Retry-After."""
    shared.run("neutral", retry_after_s=60)
    shared.redis.hset("breaker:{x}", "forced", "closed")
    assert shared.admit().accepted == 1

    shared.redis.hset("breaker:{x}", "forced", "open")
    shared.tick(60)

    assert shared.admit().accepted == 0


def test_i16_a_word_nobody_knows_forces_nothing(shared: Bench) -> None:
    """Only open and closed are obeyed."""
    shared.admit()
    shared.redis.hset("breaker:{x}", "forced", "maybe")

    assert (shared.admit().accepted, shared.peek().forced) == (1, None)


def test_i17_one_entry_for_each_transition(shared: Bench) -> None:
    """Written in the same step, each `from` the previous `to`, also across a lost key."""
    shared.half_open("a")
    shared.run("failure", "a", reason="ServerError")
    shared.tick(30)
    shared.run("success", "b")
    shared.run("success", "c")
    shared.trip()
    shared.redis.delete("breaker:{x}")
    shared.admit()

    events = list(reversed(shared.store.events("x", 20)))
    assert [(event["from"], event["to"], event["reason"]) for event in events] == [
        ("closed", "open", "Overloaded"),
        ("open", "half-open", "due"),
        ("half-open", "open", "ServerError"),
        ("open", "half-open", "due"),
        ("half-open", "closed", "recovered"),
        ("closed", "open", "Overloaded"),
        ("open", "closed", "lost"),
    ]
    assert events[0].keys() == {
        "id", "from", "to", "reason", "failures", "successes", "generation", "open_until_ms",
        "trips", "who", "at_ms",
    }  # fmt: skip
    assert (events[4]["successes"], events[5]["failures"], events[5]["trips"]) == ("2", "5", "3")
    assert [event["open_until_ms"] == "0" for event in events] == [
        event["to"] != "open" for event in events
    ]


def test_i18_the_function_runs_once_and_its_error_comes_out_unchanged(breakers: Breakers) -> None:
    """But for the tripping call, whose BreakerOpen has it as its cause."""
    error, calls = KeyError("x"), []

    def fail() -> None:
        calls.append(1)
        raise error

    breaker = breakers.get("x", fail_max=2)
    with pytest.raises(KeyError) as first:
        breaker.call(fail)
    with pytest.raises(BreakerOpen) as second:
        breaker.call(fail)
    with pytest.raises(BreakerOpen) as third:
        breaker.call(fail)

    assert len(calls) == 2
    assert first.value is error
    assert second.value.__cause__ is error
    assert third.value.__cause__ is None


def test_i18_no_lock_is_held_while_the_function_runs(breakers: Breakers) -> None:
    """Fifty threads meet inside one breaker."""
    breaker = breakers.get("x")
    breaker.call(int)
    all_inside = threading.Barrier(50, timeout=180)  # it breaks if they come one after another

    with ThreadPoolExecutor(50) as threads:
        places = threads.map(lambda _: breaker.call(all_inside.wait), range(50))

    assert sorted(places) == list(range(50))

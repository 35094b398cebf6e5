"""SharedCircuitBreaker is a pybreaker.CircuitBreaker; what differs is in docs/breaker.md."""

import asyncio
import gc
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pybreaker
import pytest
import structlog
from celery.exceptions import SoftTimeLimitExceeded

from breaker import BreakerOpen, Breakers, SharedCircuitBreaker
from breaker import get_circuit_breaker as default_breaker
from breaker import reset_all_breakers as reset_all


@pytest.fixture
def breaker(breakers: Breakers) -> SharedCircuitBreaker:
    return breakers.get("x")


def fail(error: BaseException | None = None) -> None:
    raise error or OSError("down")


def trip(breaker: SharedCircuitBreaker) -> None:
    breaker.record(breaker.admit(), "failure", trip=True, reason="Overloaded")


class Listener(pybreaker.CircuitBreakerListener):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.heard.append(("before", args))

    def success(self, cb: Any) -> None:
        self.heard.append("success")

    def failure(self, cb: Any, exc: BaseException) -> None:
        self.heard.append(type(exc).__name__)

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.heard.append((old_state.name, new_state.name))


def test_it_is_a_pybreaker(breaker: SharedCircuitBreaker) -> None:
    """Its class, its states' names, its counters."""
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)

    assert isinstance(breaker, pybreaker.CircuitBreaker)
    assert isinstance(breaker.state, pybreaker.CircuitBreakerState)
    assert (breaker.current_state, breaker.state.name) == (pybreaker.STATE_CLOSED, "closed")
    assert (breaker.fail_counter, breaker.success_counter, breaker.name) == (1, 0, "x")
    assert (breaker.fail_max, breaker.reset_timeout, breaker.success_threshold) == (5, 30, 2)


def test_numbers_may_be_changed_while_it_runs(breaker: SharedCircuitBreaker) -> None:
    """pybreaker's setters, with the range checked."""
    breaker.fail_max, breaker.reset_timeout, breaker.success_threshold = 1, 0.05, 1

    with pytest.raises(BreakerOpen):
        breaker.call(fail)
    with pytest.raises(ValueError, match="fail_max is 0"):
        breaker.fail_max = 0

    assert breaker.peek().open_for_s <= 0.05


def test_open_half_open_and_close_by_hand(breaker: SharedCircuitBreaker) -> None:
    """Manual transitions, by method or by assignment."""
    breaker.open()
    with pytest.raises(BreakerOpen) as refused:
        breaker.call(int)
    assert (refused.value.state, refused.value.reason) == ("open", "manual")

    breaker.half_open()
    breaker.call(int)
    assert breaker.success_counter == 1

    breaker.close()
    assert breaker.current_state == "closed"
    breaker.state = "open"
    assert breaker.current_state == "open"
    with pytest.raises(ValueError, match="unknown state 'ajar'"):
        breaker.state = "ajar"


def test_the_refusal_knows_when_to_ask_again_and_survives_pickling(
    breaker: SharedCircuitBreaker,
) -> None:
    """It may travel through a result backend."""
    trip(breaker)

    with pytest.raises(pybreaker.CircuitBreakerError) as refused:
        breaker.call(int)
    copy = pickle.loads(pickle.dumps(refused.value))

    assert (copy.name, copy.state, copy.reason) == ("x", "open", "Overloaded")
    assert 29 < copy.retry_in_s <= 30
    assert str(copy) == f"breaker 'x' is open (Overloaded); ask again in {copy.retry_in_s:.1f} s"


def test_a_forced_breaker_says_so(breaker: SharedCircuitBreaker) -> None:
    """`force` overrides; None ends it; nobody knows for how long it was meant."""
    breaker.force("open")
    with pytest.raises(BreakerOpen) as refused:
        breaker.admit()
    assert (refused.value.reason, refused.value.retry_in_s) == ("forced", 30)

    trip_me = breaker.force("closed")
    assert trip_me.forced == "closed"
    breaker.open()
    assert breaker.call(lambda: "through") == "through"

    assert breaker.force(None).forced is None
    with pytest.raises(BreakerOpen):
        breaker.admit()


def test_the_decorator_guards_functions(breaker: SharedCircuitBreaker) -> None:
    """With and without parentheses, name and arguments kept."""

    @breaker
    def plain(a: int, *, b: int) -> int:
        return a + b

    @breaker()
    def called(a: int) -> int:
        return a

    assert (plain(1, b=2), plain.__name__, called(3)) == (3, "plain", 3)
    trip(breaker)
    with pytest.raises(BreakerOpen):
        plain(1, b=2)


def test_the_decorator_keeps_an_async_function_async(breaker: SharedCircuitBreaker) -> None:
    """Frameworks look; pybreaker never counts an async function's failures."""

    @breaker
    async def ask() -> None:
        fail()

    async def run() -> None:
        for _ in range(4):
            with pytest.raises(OSError, match="down"):
                await ask()
        with pytest.raises(BreakerOpen):
            await ask()

    assert asyncio.iscoroutinefunction(ask)
    asyncio.run(run())
    assert breaker.current_state == "open"


def test_calls_in_one_event_loop_run_side_by_side(breaker: SharedCircuitBreaker) -> None:
    """Fifty calls meet inside."""

    async def run() -> list[int]:
        all_inside = asyncio.Barrier(50)
        calls = (breaker.call(all_inside.wait) for _ in range(50))
        return await asyncio.wait_for(asyncio.gather(*calls), 180)

    assert sorted(asyncio.run(run())) == list(range(50))


def test_cancelling_an_async_call_is_neutral(breaker: SharedCircuitBreaker) -> None:
    """And gives its probe's lease back."""
    breaker.half_open()

    async def run() -> None:
        call = asyncio.ensure_future(breaker.call(asyncio.sleep, 60))
        await asyncio.sleep(0)
        assert breaker.peek().probes == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(run())
    assert (breaker.current_state, breaker.peek().probes) == ("half-open", 0)


def test_calling_guards_a_with_statement(breaker: SharedCircuitBreaker) -> None:
    """Body in, body's exception out."""
    error = OSError("down")
    with pytest.raises(OSError, match="down") as out, breaker.calling():
        raise error
    assert (out.value, breaker.fail_counter) == (error, 1)

    with breaker.calling():
        pass
    assert breaker.fail_counter == 0

    with pytest.raises(StopIteration), breaker.calling():
        raise StopIteration


def test_a_stream_succeeds_when_it_is_exhausted(breaker: SharedCircuitBreaker) -> None:
    """Not when it begins; what is sent in and returned passes through."""

    def stream() -> Iterator[Any]:
        got = yield 1
        yield got
        return "end"

    with pytest.raises(OSError, match="down"):
        breaker.call(fail)
    watched = breaker.call(stream)
    assert (next(watched), watched.send("sent"), breaker.fail_counter) == (1, "sent", 1)

    with pytest.raises(StopIteration) as end:
        next(watched)

    assert (end.value.value, breaker.fail_counter) == ("end", 0)


def test_a_stream_that_breaks_is_a_failure(breaker: SharedCircuitBreaker) -> None:
    """Sync or async."""

    def stream() -> Iterator[int]:
        yield 1
        fail()

    async def async_stream() -> AsyncIterator[int]:
        yield 1
        fail()

    async def drain() -> list[int]:
        return [item async for item in breaker.call(async_stream)]

    with pytest.raises(OSError, match="down"):
        list(breaker.call(stream))
    with pytest.raises(OSError, match="down"):
        asyncio.run(drain())

    assert breaker.fail_counter == 2


def test_streams_closed_early_do_not_open_the_breaker(breaker: SharedCircuitBreaker) -> None:
    """Five of them open pybreaker's."""

    def stream() -> Iterator[int]:
        yield 1
        yield 2

    async def async_stream() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def one() -> None:
        async for _ in breaker.call(async_stream):
            break

    for _ in range(5):
        next(breaker.call(stream))
        stream_closed = breaker.call(stream)
        next(stream_closed)
        stream_closed.close()
        asyncio.run(one())
    gc.collect()

    assert (breaker.current_state, breaker.fail_counter) == ("closed", 0)


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(), GeneratorExit(), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
)
def test_what_ends_us_is_not_the_providers_fault(
    breaker: SharedCircuitBreaker, error: BaseException
) -> None:
    """A BaseException that is no Exception is neutral, and never swallowed."""
    for _ in range(6):
        with pytest.raises(type(error)) as out:
            breaker.call(fail, error)
        assert out.value is error

    assert (breaker.current_state, breaker.fail_counter) == ("closed", 0)


def test_a_task_queues_time_limit_can_be_declared_neutral(redis_url: str) -> None:
    """Celery's is an Exception; the breaker knows no Celery, so it is told."""
    breakers = Breakers.from_url(redis_url, neutral=[SoftTimeLimitExceeded])
    breaker = breakers.get("x")

    with pytest.raises(SoftTimeLimitExceeded):
        breaker.call(fail, SoftTimeLimitExceeded())

    assert breaker.fail_counter == 0
    breakers.close()


def test_an_excluded_error_is_neutral_not_a_success(breakers: Breakers) -> None:
    """By class or by predicate; it leaves the run of failures as it is."""

    class Meta(type):
        pass

    class OddError(Exception, metaclass=Meta):
        pass

    breaker = breakers.get("x", exclude=[ValueError, OddError, lambda error: "bad" in str(error)])
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)

    for error in (ValueError(), OddError(), RuntimeError("bad request")):
        with pytest.raises(type(error)):
            breaker.call(fail, error)

    assert breaker.fail_counter == 1


def test_retry_after_is_read_from_the_exception(breakers: Breakers) -> None:
    """An attribute `retry_after_s`, on failures and on excluded errors alike."""

    class RateLimitedError(Exception):
        retry_after_s = 20.0

    breaker = breakers.get("x", exclude=[RateLimitedError])
    with pytest.raises(RateLimitedError):
        breaker.call(fail, RateLimitedError())

    with pytest.raises(BreakerOpen) as refused:
        breaker.call(int)

    assert (refused.value.state, refused.value.reason) == ("closed", "throttled")
    assert 19 < refused.value.retry_in_s <= 20


def test_the_tripping_call_may_raise_its_own_error(breakers: Breakers) -> None:
    """`throw_new_error_on_trip` off: the failure itself comes out."""
    breaker = breakers.get("x", fail_max=1, throw_new_error_on_trip=False)

    with pytest.raises(OSError, match="down"):
        breaker.call(fail)

    assert breaker.current_state == "open"


def test_listeners_hear_calls_and_transitions(breakers: Breakers) -> None:
    """In the order things happen; transitions this process made."""
    listener = Listener()
    breaker = breakers.get("x", fail_max=1, success_threshold=1, listeners=[listener])

    breaker.call(lambda n: n, 7)
    with pytest.raises(BreakerOpen):
        breaker.call(fail)
    breaker.half_open()
    breaker.call(int)

    assert listener.heard == [
        ("before", (7,)), "success",
        ("before", ()), "OSError", ("closed", "open"),
        ("open", "half-open"),
        ("before", ()), ("half-open", "closed"), "success",
    ]  # fmt: skip


def test_a_listener_that_raises_changes_nothing(breakers: Breakers) -> None:
    """Its error is logged by class alone: its arguments may be a prompt."""

    class Bad(pybreaker.CircuitBreakerListener):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError(args)

    breaker = breakers.get("x", listeners=[Bad()])
    with structlog.testing.capture_logs() as logs:
        assert breaker.call(str, "secret prompt") == "secret prompt"

    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("breaker.listener_failed", "RuntimeError")
    ]
    assert "secret" not in str(logs)


def test_a_listener_may_use_the_breaker(breakers: Breakers) -> None:
    """No lock is held while it is told."""

    class Curious(pybreaker.CircuitBreakerListener):
        def success(self, cb: Any) -> None:
            self.seen = cb.current_state, cb.peek().failures

    listener = Curious()
    breakers.get("x", listeners=[listener]).call(int)

    assert listener.seen == ("closed", 0)


def test_transitions_of_this_process_are_logged(breaker: SharedCircuitBreaker) -> None:
    """A warning when it opens, an info else."""
    with structlog.testing.capture_logs() as logs:
        trip(breaker)
        breaker.close()

    assert [(e["log_level"], e["event"], e["before"], e["after"], e["reason"]) for e in logs] == [
        ("warning", "breaker.transition", "closed", "open", "Overloaded"),
        ("info", "breaker.transition", "open", "closed", ""),
    ]


def test_a_name_is_one_object(breakers: Breakers) -> None:
    """Asked for with other numbers it says so, instead of ignoring them."""
    first = breakers.get("x", fail_max=3)

    assert breakers.get("x") is first
    assert breakers.get("x", fail_max=3) is first
    with pytest.raises(ValueError, match=r"already in use with \{'fail_max': 3\}"):
        breakers.get("x", fail_max=4)


def test_two_processes_share_the_count(breakers: Breakers, redis_url: str) -> None:
    """pybreaker resets shared counters when a process notices another's transition."""
    others = Breakers.from_url(redis_url)
    for _ in range(2):
        for one in (breakers, others):
            with pytest.raises(OSError, match="down"):
                one.get("x").call(fail)

    with pytest.raises(BreakerOpen):
        breakers.get("x").call(fail)
    with pytest.raises(BreakerOpen):
        others.get("x").admit()
    others.close()


def test_peek_all_and_views_show_every_breaker(breakers: Breakers) -> None:
    """peek_all asks Redis; views is what this process last heard."""
    for name in ("b", "a"):
        breakers.get(name).call(int)

    assert [view.name for view in breakers.peek_all()] == ["a", "b"]
    assert [view.name for view in breakers.views()] == ["a", "b"]
    assert breakers.events("a") == []


def test_a_flushed_redis_learns_the_names_again(breakers: Breakers, redis_url: str) -> None:
    """The set of names is rewritten when a hash is."""
    breakers.get("x").call(int)
    breakers._client.flushall()

    breakers.get("x").call(int)

    assert [view.name for view in breakers.peek_all()] == ["x"]


def test_the_plain_helpers_use_redis_url(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """get_circuit_breaker hands out shared breakers; reset_all_breakers closes every one."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    breaker = default_breaker("plain", fail_max=1)
    with pytest.raises(BreakerOpen):
        breaker.call(fail)
    breaker.force("open")

    reset_all()

    view = default_breaker("plain").peek()
    assert (view.state, view.forced, view.failures) == ("closed", None, 0)


def test_a_permit_belongs_to_its_breaker(breakers: Breakers) -> None:
    """Handing it to another is a bug worth hearing of."""
    permit = breakers.get("x").admit()

    with pytest.raises(ValueError, match="permit of breaker 'x' came to 'y'"):
        breakers.get("y").record(permit, "success")


def test_a_healthy_call_costs_two_round_trips(breakers: Breakers) -> None:
    """One to admit, one to record."""
    breaker = breakers.get("x")
    breaker.call(int)
    before = breakers._client.info("commandstats")

    breaker.call(int)

    after = breakers._client.info("commandstats")
    calls = {
        name: stats["calls"] - before.get(name, {"calls": 0})["calls"]
        for name, stats in after.items()
    }
    assert calls["cmdstat_evalsha"] == 2
    assert {name for name, number in calls.items() if number} <= {
        "cmdstat_evalsha", "cmdstat_time", "cmdstat_hgetall", "cmdstat_info",
    }  # fmt: skip


def test_another_name_is_another_state(breakers: Breakers) -> None:
    """pybreaker's setter; a call that is out then counts where it was admitted."""
    breaker = breakers.get("before", fail_max=2)
    out = breaker.admit()

    breaker.name = "after"
    breaker.record(out, "failure", reason="OSError")
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)

    assert (breaker.name, breaker.peek().name) == ("after", "after")
    assert (breakers.get("before").fail_counter, breaker.fail_counter) == (1, 1)
    assert breakers.get("before") is not breaker


@pytest.mark.parametrize("name", ["", "a b", "{a}", "a\n", None, 5])
def test_a_name_that_is_no_key_is_refused(breaker: SharedCircuitBreaker, name: Any) -> None:
    """And the breaker keeps the one it has."""
    with pytest.raises(ValueError, match="must be without spaces and braces"):
        breaker.name = name

    assert breaker.name == "x"


def test_a_permit_of_another_breaker_is_refused_after_a_new_name(breakers: Breakers) -> None:
    """It was never admitted by this one."""
    breaker = breakers.get("a")
    breaker.name = "b"

    with pytest.raises(ValueError, match="a permit of breaker 'c' came to 'b'"):
        breaker.record(breakers.get("c").admit(), "success")


def test_a_renamed_breaker_is_not_reset_in_place_of_another(breakers: Breakers) -> None:
    """Nor handed out under its earlier name."""
    trip(breakers.get("a"))
    renamed = breakers.get("a")
    renamed.name = "b"
    trip(renamed)

    breakers.reset_all()

    assert [breakers.get(name).current_state for name in "ab"] == ["closed", "closed"]
    assert breakers.replace("a").name == "a"


def test_pybreakers_word_for_async_is_taken(breaker: SharedCircuitBreaker) -> None:
    """With parentheses or beside the function; what is awaited is counted, without Tornado."""

    @breaker(__pybreaker_call_async=True)
    async def answer(value: int) -> int:
        return value

    async def down() -> None:
        raise OSError("down")

    async def both() -> int:
        with pytest.raises(OSError, match="down"):
            await breaker(down, __pybreaker_call_async=True)()
        failures = breaker.fail_counter
        assert await answer(3) == 3
        return failures

    assert asyncio.run(both()) == 1
    assert breaker.fail_counter == 0


def test_a_future_is_awaited_and_counted(breaker: SharedCircuitBreaker) -> None:
    """What Tornado's coroutines return is one."""

    async def use() -> None:
        @breaker(__pybreaker_call_async=True)
        def refused() -> asyncio.Future[None]:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(OSError("down"))
            return future

        with pytest.raises(OSError, match="down"):
            await refused()

    asyncio.run(use())

    assert breaker.fail_counter == 1


def test_a_word_that_is_not_pybreakers_is_refused(breaker: SharedCircuitBreaker) -> None:
    """A typing error is not passed over."""
    with pytest.raises(TypeError, match=r"unknown arguments \['call_async'\]"):
        breaker(int, call_async=True)


def test_only_added_listeners_are_listed(breakers: Breakers) -> None:
    """The one that writes the log is the breaker's own, and stays."""
    first, second = Listener(), Listener()
    breaker = breakers.get("x", fail_max=1, listeners=[first])

    breaker.add_listeners(second)
    listed = breaker.listeners
    breaker.remove_listener(first)
    with structlog.testing.capture_logs() as logs, pytest.raises(BreakerOpen):
        breaker.call(fail)

    assert (listed, breaker.listeners) == ((first, second), (second,))
    assert second.heard[-1] == ("closed", "open")
    assert [entry["event"] for entry in logs] == ["breaker.transition"]

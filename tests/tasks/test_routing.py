"""The walk of the chain: who is asked, who is passed over, and what comes of it."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import pytest

from breaker import Breakers
from breakwater import errors
from breakwater.attempt import UNCOUNTED, Attempt, Usage
from breakwater.calls.call import CompletionCall
from tasks.answering.walk import ChainAnswer, NothingAvailable
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.providers.base import Completion, Request
from tests.support.scripted import ScriptedProvider, Step, answer, settings_over
from tests.support.walking import Walking


class House:
    """A role `coder` over scripted providers."""

    def __init__(self, breakers: Breakers, **scripts: list[Step]) -> None:
        self.providers = {name: ScriptedProvider(*steps) for name, steps in scripts.items()}
        settings = settings_over(*scripts)
        self.walking = Walking(settings, breakers, self.providers)
        self.role = settings.roles["coder"]

    def route(self, options: dict[str, Any] | None = None, **given: Any) -> ChainAnswer:
        call = CompletionCall.of("coder", "hi", options or {})
        return self.walking.walk(call, self.role, **given)

    def asked(self) -> dict[str, int]:
        return {name: len(provider.requests) for name, provider in self.providers.items()}


def outcomes(attempts: list[Any]) -> list[tuple[str, str, str | None]]:
    return [(a.provider, a.outcome, a.error) for a in attempts]


def test_the_first_target_serves_when_it_can(breakers: Breakers) -> None:
    """A healthy first target is the only one asked."""
    house = House(breakers, a=["hello"], b=["never"])

    routed = house.route()

    assert routed.completion.text == "hello"
    assert outcomes(routed.attempts) == [("a", "succeeded", None)]
    assert house.asked() == {"a": 1, "b": 0}


def test_an_answer_that_nobody_counted_is_paid_once(breakers: Breakers) -> None:
    """Its counts and its cost are unknown in the row; nobody else is asked."""
    counted = replace(answer("hello"), usage=Usage(3, None))
    uncounted = replace(counted, usage=UNCOUNTED)
    house = House(breakers, a=[lambda _: counted, lambda _: uncounted], b=["never"])

    for routed in (house.route(), house.route()):
        (attempt,) = routed.attempts
        row = json.loads(attempt.row({}))
        assert (routed.completion.text, row["output_tokens"], row["cost_usd"]) == (
            "hello",
            None,
            None,
        )

    assert house.asked() == {"a": 2, "b": 0}


class HookCallingProvider(ScriptedProvider):
    """A provider that calls the hook itself, as the adapters of this package do."""

    calls_before_sending_hook: Literal[True] = True

    def complete(self, request: Request) -> Completion:
        request.before_sending()
        return super().complete(request)


@pytest.mark.parametrize("provider", [ScriptedProvider, HookCallingProvider])
def test_a_call_is_recorded_once_before_it_goes_out(
    breakers: Breakers, provider: type[ScriptedProvider]
) -> None:
    """By the provider if it calls the hook, else by the walk: a class may lack the attribute."""
    calls: list[str] = []

    class Recorder(AttemptRecorder):
        def calling(self, attempt: Attempt) -> None:
            calls.append(f"calling {attempt.provider}")

    def complete(_request: Request) -> Completion:
        calls.append("complete")
        return answer("hello")

    house = House(breakers, a=["never"])
    house.walking.registry._injected["a"] = provider(complete)

    house.route(recorder=Recorder({"task_id": "t1", "role": "coder"}))

    assert calls == ["calling a", "complete"]


@pytest.mark.parametrize(
    "error",
    [
        errors.Overloaded, errors.ServerError, errors.ProviderTimeout, errors.ConnectionFailed,
        errors.GarbledAnswer, errors.TruncatedAnswer, errors.RateLimited, errors.QuotaExhausted,
        errors.AuthenticationFailed, errors.ModelNotFound, errors.ContextWindowExceeded,
        errors.ContentFiltered,
    ],
)  # fmt: skip
def test_the_next_target_serves_when_one_fails(
    breakers: Breakers, error: type[errors.ProviderError]
) -> None:
    """Every error whose verdict says so goes on at once, without asking the same target again."""
    house = House(breakers, a=[error("no", status=500)], b=["hello"])

    routed = house.route()

    assert outcomes(routed.attempts) == [("a", "failed", error.__name__), ("b", "succeeded", None)]
    assert routed.attempts[1].why == f"after a: {error.__name__}"
    assert house.asked() == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest,
        errors.UnsupportedInput,
        errors.UnknownError,
        errors.HostFault,
        partial(errors.UnfinishedAnswer, details={errors.FINISH_REASON: "'paused'"}),
    ],
)
def test_an_unknown_refusal_goes_on_and_counts_for_nothing(
    breakers: Breakers, error: Callable[..., errors.ProviderError]
) -> None:
    """What nobody can tell the meaning of is neither the prompt's fault nor the provider's."""
    house = House(breakers, a=[error("a answered 418: no", status=418)], b=["hello"])

    for _ in range(6):
        routed = house.route()

    assert routed.completion.text == "hello"
    assert routed.attempts[0].why == "first of the chain; a answered 418: no"
    assert house.asked() == {"a": 6, "b": 6}
    assert breakers.get("a").peek().failures == 0


@pytest.mark.parametrize(
    "second", [errors.InvalidRequest("b answered 400: no"), errors.ContextWindowExceeded("long")]
)
def test_a_prompt_that_every_target_refuses_fails_with_the_first_ones_words(
    breakers: Breakers, second: errors.ProviderError
) -> None:
    """The chain ends only when nobody is left; no breaker hears of it."""
    first = errors.InvalidRequest("a answered 400: no", status=400)
    house = House(breakers, a=[first], b=[second])

    with pytest.raises(errors.InvalidRequest, match="a answered 400: no") as raised:
        house.route()

    assert [a["error"] for a in raised.value.attempts] == ["InvalidRequest", type(second).__name__]
    assert breakers.get("a").peek().failures == breakers.get("b").peek().failures == 0


def test_a_refusal_of_an_earlier_walk_keeps_its_words(breakers: Breakers) -> None:
    """The first target refused, the second was busy; when it refuses too, the first one's count."""
    house = House(
        breakers,
        a=[errors.InvalidRequest("a answered 400: no", status=400)],
        b=[errors.Overloaded("busy"), errors.InvalidRequest("b answered 400: no")],
    )
    with pytest.raises(NothingAvailable) as first:
        house.route()

    with pytest.raises(errors.InvalidRequest, match=r"^a answered 400: no$") as raised:
        house.route(earlier=first.value.attempts)

    assert raised.value.status == 400
    assert house.asked() == {"a": 1, "b": 2}


def test_a_target_that_this_host_cannot_call_is_passed_over(breakers: Breakers) -> None:
    """Nothing went out, so the attempt is no failure of the provider's."""
    house = House(breakers, a=[errors.HostFault("ALL_PROXY is wrong")], b=["hello"])

    routed = house.route()

    assert outcomes(routed.attempts)[0] == ("a", "rejected", "HostFault")


def test_a_task_that_this_host_cannot_call_for_waits(breakers: Breakers) -> None:
    """Another host may well reach them: it goes back, and is no dead letter."""
    house = House(breakers, a=[errors.HostFault("no proxy")], b=[errors.HostFault("no proxy")])

    with pytest.raises(NothingAvailable):
        house.route()


def test_an_open_breaker_is_passed_over(breakers: Breakers) -> None:
    """After five failures the target is rejected without a call, and the attempt says why."""
    house = House(breakers, a=[errors.Overloaded("no")], b=["hello"])
    for _ in range(5):
        house.route()

    routed = house.route()

    assert outcomes(routed.attempts)[0] == ("a", "rejected", "BreakerOpen")
    assert "open (Overloaded), ask again in" in routed.attempts[0].why
    assert house.asked()["a"] == 5


@pytest.mark.parametrize("error", [errors.QuotaExhausted, errors.AuthenticationFailed])
def test_one_proof_opens_the_breaker(breakers: Breakers, error: type[errors.ProviderError]) -> None:
    """A dead key or a spent quota needs no second call to be believed."""
    house = House(breakers, a=[error("no")], b=["hello"])

    house.route()

    assert breakers.get("a").peek().state == "open"


def test_retry_after_holds_back_without_tripping(breakers: Breakers) -> None:
    """A 429 is no failure of health: the breaker stays closed, the provider is left alone."""
    house = House(breakers, a=[errors.RateLimited("slow", retry_after_s=20)], b=["hello"])
    house.route()

    routed = house.route()

    view = breakers.get("a").peek()
    assert (view.state, view.failures) == ("closed", 0)
    assert 18 < view.held_for_s <= 20
    assert outcomes(routed.attempts)[0] == ("a", "rejected", "BreakerOpen")
    assert "throttled" in routed.attempts[0].why
    assert house.asked()["a"] == 1


def test_an_answer_of_a_provider_held_back_meanwhile_opens_no_queue(breakers: Breakers) -> None:
    """It was asked before; whoever waits would be turned away at once."""

    def hold_and_answer(_: Request) -> Completion:
        throttled = breakers.get("a")
        throttled.record(throttled.admit(), "neutral", retry_after_s=20)
        return answer("hello")

    held, free = House(breakers, a=[hold_and_answer]), House(breakers, b=["hello"])

    assert not held.route().admits_all
    assert free.route().admits_all


def test_when_nothing_can_serve_the_earliest_wait_is_told(breakers: Breakers) -> None:
    """The task waits for the target that may be asked first."""
    house = House(
        breakers,
        a=[errors.RateLimited("slow", retry_after_s=50)],
        b=[errors.RateLimited("slow", retry_after_s=10)],
    )

    with pytest.raises(NothingAvailable) as first:
        house.route()
    with pytest.raises(NothingAvailable) as second:
        house.route()

    assert outcomes(first.value.attempts) == [
        ("a", "failed", "RateLimited"),
        ("b", "failed", "RateLimited"),
    ]
    assert [a.outcome for a in second.value.attempts] == ["rejected", "rejected"]
    assert 8 < second.value.wait_s <= 10


def test_a_prompt_that_every_target_refuses_fails(breakers: Breakers) -> None:
    """Waiting does not shorten a prompt: the task ends with the error all targets agree on."""
    house = House(
        breakers,
        a=[errors.ContextWindowExceeded("long")],
        b=[errors.ContextWindowExceeded("long")],
    )

    with pytest.raises(errors.ContextWindowExceeded) as raised:
        house.route()

    assert len(raised.value.attempts) == 2


def test_different_refusals_are_told_together(breakers: Breakers) -> None:
    """When the targets refuse for different reasons, the error names each."""
    house = House(
        breakers, a=[errors.ContextWindowExceeded("long")], b=[errors.ContentFiltered("no")]
    )

    with pytest.raises(errors.ChainExhausted, match="a: ContextWindowExceeded, b: ContentFiltered"):
        house.route()


def test_a_target_that_refused_the_prompt_is_not_asked_again(breakers: Breakers) -> None:
    """On a later walk only the targets that may do better are asked."""
    house = House(
        breakers, a=[errors.ContentFiltered("no")], b=[errors.Overloaded("busy"), "hello"]
    )
    with pytest.raises(NothingAvailable) as first:
        house.route()

    routed = house.route(earlier=first.value.attempts)

    assert outcomes(routed.attempts) == [
        ("a", "rejected", "ContentFiltered"),
        ("b", "succeeded", None),
    ]
    assert house.asked() == {"a": 1, "b": 2}


def test_a_call_that_is_cut_off_is_nobodys_failure(breakers: Breakers) -> None:
    """A time limit or a shutdown says nothing about the provider; the walk ends there."""
    house = House(breakers, a=[errors.Cancelled("shutdown")], b=["never"])

    with pytest.raises(errors.Cancelled):
        house.route()

    assert breakers.get("a").peek().failures == 0
    assert house.asked()["b"] == 0


@pytest.mark.parametrize("bug", [ZeroDivisionError("ours"), SystemExit(1), KeyboardInterrupt()])
def test_a_bug_of_ours_is_nobodys_failure(breakers: Breakers, bug: BaseException) -> None:
    """What is not the provider's doing comes out unchanged and counts for nothing."""
    house = House(breakers, a=[bug])

    with pytest.raises(type(bug)):
        house.route()

    assert breakers.get("a").peek().failures == 0


def test_a_call_never_outlives_the_deadline(breakers: Breakers) -> None:
    """The provider is given no more time than the task has left."""
    house = House(breakers, a=["hello"])

    house.route(deadline=time.monotonic() + 7)

    assert 6 < house.providers["a"].requests[0].timeout_s <= 7


def _times_out_after(now: list[float], seconds: float, **given: Any) -> Any:
    """Return a step that ends so much later, on `now`, with a ProviderTimeout."""

    def step(_: Request) -> Completion:
        now[0] += seconds
        raise errors.ProviderTimeout("no whole answer in time", **given)

    return step


@pytest.mark.parametrize("status", [None, 504])
def test_a_call_that_the_deadline_cut_is_nobodys_failure(
    breakers: Breakers, status: int | None
) -> None:
    """A caller in a hurry must not open a healthy provider's breaker for everybody."""
    for _ in range(6):
        now = [100.0]
        house = House(breakers, a=[_times_out_after(now, 1.0, status=status)], b=["never"])

        with pytest.raises(errors.DeadlineExceeded, match="cut the call to 'a'") as cut:
            house.route(deadline=101.0, clock=lambda now=now: now[0])

        assert house.asked() == {"a": 1, "b": 0}

    view = breakers.get("a").peek()
    assert (view.state, view.failures) == ("closed", 0)
    attempt = cut.value.attempts[0]
    assert (attempt["outcome"], attempt["error"]) == ("failed", "DeadlineExceeded")
    assert attempt["why"] == "first of the chain; cut by the deadline of the task"


@pytest.mark.parametrize("deadline", [200.0, 100.0 + 120.0])
def test_a_call_that_the_providers_own_timeout_ended_is_its_failure(
    breakers: Breakers, deadline: float
) -> None:
    """Its total, or a stream's pace, was over before the task's time was."""
    now = [100.0]
    house = House(breakers, a=[_times_out_after(now, 30.0)], b=["hello"])

    routed = house.route(deadline=deadline, clock=lambda: now[0])

    assert outcomes(routed.attempts)[0] == ("a", "failed", "ProviderTimeout")
    assert breakers.get("a").peek().failures == 1


def test_a_timeout_of_the_provider_counts_where_the_deadline_is_later(breakers: Breakers) -> None:
    """Both may be over: the shorter of the two was the provider's."""
    now = [100.0]
    house = House(breakers, a=[_times_out_after(now, 121.0)], b=["hello"])

    with pytest.raises(errors.DeadlineExceeded):
        house.route(deadline=220.5, clock=lambda: now[0])

    assert breakers.get("a").peek().failures == 1


def test_a_probe_that_the_deadline_cut_gives_its_place_back(breakers: Breakers) -> None:
    """Neutral in half-open: the next probe may go out at once."""
    now = [100.0]
    house = House(breakers, a=[_times_out_after(now, 1.0)])
    house.walking.health.breaker("a").half_open()

    with pytest.raises(errors.DeadlineExceeded):
        house.route(deadline=101.0, clock=lambda: now[0])

    view = breakers.get("a").peek()
    assert (view.state, view.probes) == ("half-open", 0)


def test_no_target_is_asked_after_the_deadline(breakers: Breakers) -> None:
    """A walk whose time is up ends, and shows what was tried."""
    now = [100.0]

    def slow(_request: Any) -> Any:
        now[0] += 10
        raise errors.ServerError("no")

    house = House(breakers, a=[slow], b=["never"])

    with pytest.raises(errors.DeadlineExceeded) as raised:
        house.route(deadline=105.0, clock=lambda: now[0])

    assert [a["provider"] for a in raised.value.attempts] == ["a"]
    assert house.asked()["b"] == 0


def test_the_call_brings_its_own_system_and_params(breakers: Breakers) -> None:
    """What the caller says is nearest and wins."""
    house = House(breakers, a=["hello"])

    house.route({"system": "be brief", "params": {"temperature": 0}})

    request = house.providers["a"].requests[0]
    assert (request.system, request.params) == ("be brief", {"temperature": 0})


def test_a_probe_says_that_it_is_one(breakers: Breakers) -> None:
    """The attempt that finds out whether a provider has recovered is marked."""
    house = House(breakers, a=["hello"])
    house.walking.health.breaker("a").half_open()

    routed = house.route()

    assert routed.attempts[0].why == "first of the chain, probing whether it has recovered"

"""The walk of the chain: who is asked, who is passed over, and what comes of it."""

import time
from typing import Any

import pytest

from breaker import Breakers
from tasks import errors
from tasks.call import Call
from tasks.ledger.account import Account
from tasks.providers.base import Completion, Request
from tasks.providers.registry import Registry
from tasks.routing import NothingAvailable, Routed, route
from tests.support.scripted import ScriptedProvider, Step, answer, settings_over


class House:
    """A role `coder` over scripted providers."""

    def __init__(self, breakers: Breakers, **scripts: list[Step]) -> None:
        self.providers = {name: ScriptedProvider(*steps) for name, steps in scripts.items()}
        settings = settings_over(*scripts)
        self.registry = Registry(settings, breakers, providers=self.providers)
        self.role = settings.roles["coder"]

    def route(self, options: dict[str, Any] | None = None, **given: Any) -> Routed:
        call = Call.of("coder", "hi", options or {})
        given.setdefault("deadline", time.monotonic() + 60)
        account = Account({"task_id": "t1", "role": "coder"})
        return route(call, self.role, self.registry, account=account, **given)

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


def test_a_bad_request_ends_the_walk(breakers: Breakers) -> None:
    """A prompt that is at fault fails at once; nobody else is asked, no breaker hears of it."""
    house = House(breakers, a=[errors.InvalidRequest("bad", status=400)], b=["never"])

    with pytest.raises(errors.InvalidRequest) as raised:
        house.route()

    assert [a["outcome"] for a in raised.value.attempts] == ["failed"]
    assert house.asked()["b"] == 0
    assert breakers.get("a").peek().failures == 0


def test_an_open_breaker_is_passed_over(breakers: Breakers) -> None:
    """After five failures the target is rejected without a call, and the attempt says why."""
    house = House(breakers, a=[errors.Overloaded("no")], b=["hello"])
    for _ in range(5):
        house.route()

    routed = house.route()

    assert outcomes(routed.attempts)[0] == ("a", "rejected", "BreakerOpen")
    assert "open (Overloaded), ask again in" in routed.attempts[0].why
    assert house.asked()["a"] == 5


@pytest.mark.parametrize(
    "error", [errors.QuotaExhausted, errors.AuthenticationFailed, errors.ModelNotFound]
)
def test_one_proof_opens_the_breaker(breakers: Breakers, error: type[errors.ProviderError]) -> None:
    """A dead key, a spent quota or an unknown model needs no second call to be believed."""
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

    assert not held.route().closed
    assert free.route().closed


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

    routed = house.route(earlier=[a.as_dict() for a in first.value.attempts])

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
    house.registry.breaker("a").half_open()

    routed = house.route()

    assert routed.attempts[0].why == "first of the chain, probing whether it has recovered"

"""The gate of health: which targets a role may call, and which reports open a breaker."""

from dataclasses import replace
from typing import Any

import pytest

from breaker import Breakers
from breakwater import errors
from breakwater.calls.call import CompletionCall
from tasks.admission.health import HealthGate
from tasks.config import BreakerSettings, Settings, Target
from tasks.providers.base import Completion, Request
from tests.support.scripted import ScriptedProvider, answer, settings_over
from tests.support.walking import Walking


def settings(*names: str) -> Settings:
    """Return settings whose role `coder` has these providers, with breakers that open at two."""
    plain = settings_over(*names)
    rules = BreakerSettings(fail_max=2, reset_timeout_s=60)
    providers = {name: replace(p, breaker=rules) for name, p in plain.providers.items()}
    return replace(plain, providers=providers)


def walking(breakers: Breakers, *names: str) -> Walking:
    return Walking(settings(*names), breakers, {name: ScriptedProvider("hi") for name in names})


def test_the_target_of_a_role_is_the_first_that_would_be_admitted(breakers: Breakers) -> None:
    """In the chain's order; a look takes no probe's slot."""
    house = walking(breakers, "a", "b")
    health, walker, role = house.health, house.walker(), house.settings.roles["coder"]

    def chosen() -> str | None:
        target = walker.available_target(role)
        return target.provider if target else None

    assert chosen() == "a"
    health.breaker("a").open()
    assert chosen() == "b"
    assert list(health.available_providers()) == ["b"]
    health.breaker("b").force("open")
    assert chosen() is None
    assert health.available_providers() == {}
    health.breaker("a").half_open()
    assert chosen() == chosen() == "a", "however often one looks"
    taken = [health.breaker("a").admit() for _ in range(2)]
    assert chosen() is None, "both probes are out"
    for permit in taken:
        health.breaker("a").record(permit, "neutral")
    assert chosen() == "a"
    health.breaker("a").force("closed")
    assert health.available_providers()["a"].forced == "closed"


def test_a_held_back_provider_is_not_available(breakers: Breakers) -> None:
    """It asked to be left alone, and is healthy."""
    health = walking(breakers, "a").health

    health.report_failure("a", errors.RateLimited("slow down", retry_after_s=30))

    assert health.available_providers() == {}
    assert health.breaker("a").peek().state == "closed"
    assert 29 < health.opens_in_s(Target("a", "m")) <= 30


def test_the_reason_names_what_an_operator_forced(breakers: Breakers) -> None:
    """Not the state underneath, which is none of the role's reasons to wait."""
    house = walking(breakers, "a")
    house.health.breaker("a").force("open")

    wait_s, why = house.closed_for(house.settings.roles["coder"])

    assert (wait_s, why) == (2.0, "a is forced open")


def test_reported_failures_open_the_breaker_and_successes_end_a_run(breakers: Breakers) -> None:
    """For callers that drive a provider themselves: the verdict decides what counts."""
    health = walking(breakers, "a").health

    def failures_after(*outcomes: Exception | None) -> int:
        for outcome in outcomes:
            if outcome is None:
                health.report_success("a")
            else:
                health.report_failure("a", outcome)
        return health.breaker("a").peek().failures

    assert failures_after(errors.ServerError("no")) == 1
    assert failures_after(errors.InvalidRequest("no"), ValueError("no")) == 1
    assert failures_after(None) == 0
    assert failures_after(errors.ServerError("no"), errors.Overloaded("no")) == 2
    assert health.breaker("a").peek().state == "open"
    assert failures_after(errors.ServerError("no"), None) == 2, "while open nothing changes"


def test_one_report_of_a_bad_key_is_enough(breakers: Breakers) -> None:
    """One is proof."""
    health = walking(breakers, "a").health

    health.report_failure("a", errors.AuthenticationFailed("no"))

    assert health.breaker("a").peek().state == "open"


def test_a_breaker_goes_by_the_rules_of_the_roles_file(breakers: Breakers) -> None:
    """`breaker:` of the provider's entry."""
    health = walking(breakers, "a").health

    assert health.breaker("a") is health.breaker("a")
    assert health.breaker("a").fail_max == 2


def test_a_breaker_goes_by_new_rules_and_keeps_its_state(breakers: Breakers) -> None:
    """A gate of the old settings goes on with the old rules."""
    before = HealthGate(settings("a"), breakers)
    for _ in range(2):
        before.report_failure("a", errors.Overloaded("busy"))

    after = HealthGate(settings_over("a"), breakers)
    after.report_failure("a", errors.Overloaded("busy"))

    assert before.breaker("a").fail_max == 2
    assert after.breaker("a").fail_max == 5
    assert before.breaker("a").current_state == "open"


@pytest.mark.parametrize(
    ("forced", "admits_all"), [(None, True), ("closed", True), ("open", False)]
)
def test_an_answer_opens_no_queue_of_a_provider_that_is_forced_open(
    breakers: Breakers, forced: Any, admits_all: bool
) -> None:
    """The override came while the call was out; the queue would be parked again at once."""
    house = walking(breakers, "a")
    role = house.settings.roles["coder"]

    def force(_: Request) -> Completion:
        house.health.breaker("a").force(forced)
        return answer("hi")

    house.registry._injected["a"] = ScriptedProvider(force)

    assert house.walk(CompletionCall.of("coder", "hi", {}), role).admits_all == admits_all


@pytest.mark.parametrize("provider", ["a", "b"])
def test_the_signals_are_the_events_of_the_breakers(breakers: Breakers, provider: str) -> None:
    """Parking waits on them; the pair's stream may begin later."""
    health = walking(breakers, "a", "b").health

    keys = health.signals(Target(provider, "m"))

    assert keys == (f"breaker:{{{provider}}}:events", f"breaker:{{{provider}/m}}:events")

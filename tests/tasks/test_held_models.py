"""A model that a provider does not know: the pair is held, and nobody else."""

import threading
import time
from typing import Any

import fakeredis
import pytest

from breaker import Breakers
from breakwater import errors
from breakwater.calls.call import CompletionCall
from tasks.admission.health import pair_name
from tasks.answering.walk import ChainAnswer, NothingAvailable
from tasks.config import BreakerSettings, ProviderSettings, Role, Settings, Target
from tests.support.scripted import ScriptedProvider, Step
from tests.support.walking import Walking

MISSPELT = Target("gpt", "gpt-6-lunaa")
CHAINS = {"a": [MISSPELT, Target("claude", "m")], "b": [Target("gpt", "m")], "c": [MISSPELT]}
PAIR = "gpt/gpt-6-lunaa"


class House:
    """Roles over two providers; `gpt` knows one model, and another is misspelt in role `a`."""

    def __init__(self, breakers: Breakers, gpt: Step | None = None, reset_s: float = 60) -> None:
        rules = BreakerSettings(reset_timeout_s=reset_s, success_threshold=1)
        self.settings = Settings(
            providers={
                name: ProviderSettings(name, "openai-chat", "m", breaker=rules)
                for name in ("gpt", "claude")
            },
            roles={name: Role(name, tuple(chain)) for name, chain in CHAINS.items()},
        )
        self.gpt = ScriptedProvider(gpt or self._knows_one)
        self.knows = {"m"}
        providers = {"gpt": self.gpt, "claude": ScriptedProvider("hello")}
        self.walking = Walking(self.settings, breakers, providers)

    def _knows_one(self, request: Any) -> Any:
        if request.model not in self.knows:
            raise errors.ModelNotFound("no such model", status=404, retry_after_s=30)
        return ScriptedProvider("hi").complete(request)

    def route(self, role: str) -> ChainAnswer:
        return self.walking.walk(CompletionCall.of(role, "hi", {}), self.settings.roles[role])


def test_a_misspelt_model_takes_the_provider_from_nobody(breakers: Breakers) -> None:
    """One proof holds the pair; other roles go on with the provider."""
    house = House(breakers)

    first, second, other = house.route("a"), house.route("a"), house.route("b")

    assert [a.error for a in first.attempts] == ["ModelNotFound", None]
    assert [(a.outcome, a.error) for a in second.attempts] == [
        ("rejected", "BreakerOpen"), ("succeeded", None),
    ]  # fmt: skip
    assert second.attempts[0].why.startswith(
        "its model gpt-6-lunaa is open (ModelNotFound), ask again in"
    )
    assert other.target.provider == "gpt"
    view = breakers.get("gpt").peek()
    assert (view.state, view.failures, view.held_for_s) == ("closed", 0, 0)
    assert len(house.gpt.requests) == 2


def test_the_hold_is_visible_among_the_breakers(breakers: Breakers) -> None:
    """`breakwater breakers`, `top` and the metrics read the same set."""
    House(breakers).route("a")

    states = {view.name: view for view in breakers.peek_all()}

    assert (states[PAIR].state, states[PAIR].reason) == ("open", "ModelNotFound")
    assert breakers.events(PAIR)[0]["to"] == "open"


def test_a_probe_finds_out_that_the_model_is_there(breakers: Breakers) -> None:
    """After the open time one call is let through, and its success ends the hold."""
    house = House(breakers)
    house.route("a")
    house.knows.add(MISSPELT.model)
    breakers.get(PAIR).half_open()

    probed = house.route("a")

    assert probed.target == MISSPELT
    assert probed.attempts[0].why == "first of the chain, probing whether it has recovered"
    assert breakers.get(PAIR).peek().state == "closed"
    assert probed.admits_all, "whoever waits for the pair may come"


def test_a_probe_that_fails_again_holds_again(breakers: Breakers) -> None:
    """And any other error in a probe is neutral to the pair."""
    house = House(breakers)
    house.route("a")

    breakers.get(PAIR).half_open()
    house.route("a")
    assert breakers.get(PAIR).peek().state == "open"

    breakers.get(PAIR).half_open()
    house.gpt.steps = [errors.Overloaded("busy")]
    house.route("a")
    view = breakers.get(PAIR).peek()
    assert (view.state, view.probes) == ("half-open", 0)
    assert breakers.get("gpt").peek().failures == 1


def test_a_provider_that_refuses_takes_no_probe_of_the_pair(breakers: Breakers) -> None:
    """The pair's place is given back when the provider's breaker is open."""
    house = House(breakers)
    house.route("a")
    breakers.get(PAIR).half_open()
    house.walking.health.breaker("gpt").open()

    house.route("a")

    assert breakers.get(PAIR).peek().probes == 0


def test_a_role_whose_only_model_is_held_is_closed(breakers: Breakers) -> None:
    """It waits, parked, for the pair's probe; the role with another model is open."""
    house = House(breakers)
    with pytest.raises(NothingAvailable):
        house.route("c")

    closed_s, why = house.walking.closed_for(house.settings.roles["c"])

    assert 50 < closed_s <= 60
    assert why == f"{PAIR} is open (ModelNotFound)"
    assert house.walking.closed_for(house.settings.roles["b"]) == (0.0, "")
    assert house.walking.walker().available_target(house.settings.roles["c"]) is None
    assert not house.walking.gate.look(MISSPELT).admits_all
    assert house.walking.gate.look(Target("gpt", "m")).admits_all


def test_another_process_hears_of_a_hold() -> None:
    """Its call is refused without asking the provider; nothing is asked for a pair without one."""
    server = fakeredis.FakeServer()
    mine = Breakers(fakeredis.FakeRedis(server=server))
    theirs = Breakers(fakeredis.FakeRedis(server=server), listen=True)
    other = House(theirs)
    assert other.route("b").target.provider == "gpt"
    House(mine).route("a")
    heard = threading.Event()
    ends_at = time.monotonic() + 60
    while not theirs.exists(PAIR) and time.monotonic() < ends_at:
        heard.wait(0.01)

    routed = other.route("a")

    assert [a.error for a in routed.attempts] == ["BreakerOpen", None]
    assert [r.model for r in other.gpt.requests] == ["m"]
    mine.close()
    theirs.close()


def test_a_pair_that_was_never_held_costs_no_round_trip() -> None:
    """Whoever listens reads the names of the breakers once; then nothing is asked for a pair."""
    redis = fakeredis.FakeRedis()
    breakers = Breakers(redis, listen=True)
    house = House(breakers)
    house.route("b")
    ends_at = time.monotonic() + 60
    while breakers._storage._changes.last_change_at_s("") is None and time.monotonic() < ends_at:  # type: ignore[union-attr]
        time.sleep(0.01)
    house.route("b")
    asked: list[Any] = []
    execute = redis.execute_command
    redis.execute_command = lambda *args, **more: asked.append(args) or execute(*args, **more)  # type: ignore[method-assign]

    for _ in range(50):
        assert not breakers.exists(pair_name(Target("gpt", "m")))

    assert asked == []
    breakers.close()


def test_a_hold_outlives_redis_being_away() -> None:
    """This process goes by what it saw."""
    server = fakeredis.FakeServer()
    house = House(Breakers(fakeredis.FakeRedis(server=server)))
    house.route("a")
    server.connected = False

    routed = house.route("a")

    assert [a.error for a in routed.attempts] == ["BreakerOpen", None]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-6", "p/gpt-6"), ("openai/gpt-6:free", "p/openai/gpt-6:free"), ("a b{c}", "p/a_b_c_"),
        ("模型", "p/模型"), ("a\nb\u2003c", "p/a_b_c"),
    ],
)  # fmt: skip
def test_any_models_name_makes_a_breakers_name(model: str, name: str) -> None:
    """Spaces and braces would not do as a key."""
    assert pair_name(Target("p", model)) == name


def test_a_report_of_a_caller_holds_the_providers_own_model(breakers: Breakers) -> None:
    """`report_failure` knows no model but the entry's."""
    house = House(breakers)

    house.walking.health.report_failure("gpt", errors.ModelNotFound("no"))

    assert breakers.get("gpt/m").peek().state == "open"
    assert breakers.get("gpt").peek().state == "closed"

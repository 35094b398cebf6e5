"""Gates in order: who is asked, who is unwound, and what a gate costs."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import redis

from breaker import Breakers
from breakwater import errors
from breakwater.attempt import Usage
from breakwater.calls.call import CompletionCall
from tasks.admission.gate import NOT_SENT, Ask, Estimate, Gates, GateState, Outcome, Refused
from tasks.admission.health import HealthGate
from tasks.answering.walk import ChainWalker, NothingAvailable
from tasks.config import Target
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.ledger.prices import PriceList
from tests.support.scripted import ScriptedProvider, answer, settings_over
from tests.support.walking import Walking

A, B = Target("a", "m"), Target("b", "m")


class SpyPass:
    """Remembers its outcomes, and whether it was dropped without one."""

    is_probe = False

    def __init__(self, gate: "SpyGate") -> None:
        self._gate = gate

    def settle(self, outcome: Outcome) -> bool:
        self._gate.outcomes.append(outcome)
        if self._gate.breaks:
            raise ZeroDivisionError
        return True


class SpyGate:
    """A third gate, in one class: it refuses some providers, and reads the estimate if told to."""

    def __init__(self, *closed: str, reads_estimate: bool = False, breaks: bool = False) -> None:
        self.closed = closed
        self.reads_estimate = reads_estimate
        self.breaks = breaks
        self.asks: list[Ask] = []
        self.estimates: list[Estimate] = []
        self.outcomes: list[Outcome] = []

    def admit(self, ask: Ask) -> SpyPass:
        self.asks.append(ask)
        if self.reads_estimate:
            self.estimates.append(ask.estimate)
        if ask.target.provider in self.closed:
            raise Refused("pacing", 7.0, "20 calls a minute are enough", "Paced")
        return SpyPass(self)

    def look(self, target: Target) -> GateState:
        if target.provider in self.closed:
            return GateState(7.0, (f"{target.provider} is paced",), admits_all=False)
        return GateState()

    def opens_in_s(self, target: Target) -> float:
        return self.look(target).opens_in_s

    def signals(self, target: Target) -> tuple[str, ...]:
        return (f"paced:{target.provider}",)


def ask(target: Target = A) -> Ask:
    settings = settings_over("a", "b")
    call = CompletionCall.of("coder", "hi", {})
    return Ask("t1", call, settings.roles["coder"], target, lambda: Estimate(1, None, None))


class House:
    """A role over `a` and `b`, whose gates are the test's."""

    def __init__(self, breakers: Breakers, *others: SpyGate, **scripts: Any) -> None:
        self.settings = settings_over("a", "b")
        self.health = HealthGate(self.settings, breakers)
        self.providers = {
            name: ScriptedProvider(scripts.get(name, "hi")) for name in self.settings.providers
        }
        registry = Walking(self.settings, breakers, self.providers).registry
        self.gates = Gates((*others, self.health))  # the one line
        self.walker = ChainWalker(registry, self.gates, PriceList(self.settings))

    def walk(self, prompt: Any = "hi", **options: Any) -> Any:
        return self.walker.walk(
            CompletionCall.of("coder", prompt, options),
            self.settings.roles["coder"],
            task_id="t1",
            recorder=AttemptRecorder({"task_id": "t1", "role": "coder"}),
            deadline=time.monotonic() + 60,
        )


def test_a_new_gate_is_one_class_and_one_line(breakers: Breakers) -> None:
    """It refuses, and the walk records why, goes on, and settles what was admitted."""
    paced = SpyGate("a")
    house = House(breakers, paced)

    answered = house.walk()

    assert [(a.outcome, a.error, a.why) for a in answered.attempts] == [
        ("rejected", "Paced", "20 calls a minute are enough"),
        ("succeeded", None, "after a: Paced"),
    ]
    assert [each.target for each in paced.asks] == [A, B]
    (outcome,) = paced.outcomes
    assert (outcome.error, outcome.usage) == (None, Usage(3, 2))
    assert house.gates.opens_in_s(A) == 7.0
    assert house.gates.look(A).reasons == ("a is paced",)
    assert house.gates.signals(A)[0] == "paced:a"


def test_a_task_waits_as_long_as_the_gate_says(breakers: Breakers) -> None:
    """The earliest of the chain counts, whichever gate refuses."""
    house = House(breakers, SpyGate("a"))
    house.health.breaker("b").open()

    with pytest.raises(NothingAvailable) as nothing:
        house.walk()

    assert nothing.value.wait_s == 7.0


def test_a_later_refusal_unwinds_the_earlier_gates(breakers: Breakers) -> None:
    """Each pass of before is settled once, as a call that was never sent."""
    first, second = SpyGate(), SpyGate()
    house = House(breakers, first, second)
    house.health.breaker("a").open()

    house.walk()

    assert first.outcomes[0] is second.outcomes[0] is NOT_SENT
    assert [outcome.error for outcome in first.outcomes[1:]] == [None]


def test_a_gate_that_breaks_unwinds_too(breakers: Breakers) -> None:
    """Whatever a later gate raises, the probe's slot of an earlier one is free again."""

    class Broken(SpyGate):
        def admit(self, ask: Ask) -> SpyPass:
            raise KeyboardInterrupt

    health = HealthGate(settings_over("a"), breakers)
    health.breaker("a").half_open()

    with pytest.raises(KeyboardInterrupt):
        Gates((health, Broken())).admit(ask())

    view = breakers.get("a").peek()
    assert (view.state, view.probes, view.failures) == ("half-open", 0, 0)


def test_a_pass_is_settled_once_by_whichever_thread_comes_first() -> None:
    """Twenty threads report; the gate gets one outcome."""
    gate = SpyGate()
    one = Gates((gate,)).admit(ask())
    together = threading.Barrier(20)

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda _: (together.wait(), one.settle(Outcome())), range(20)))

    assert len(gate.outcomes) == 1


def test_a_second_report_changes_no_breaker(breakers: Breakers) -> None:
    """The first one counts."""
    health = HealthGate(settings_over("a"), breakers)
    one = health.admit(ask())

    one.settle(Outcome(errors.ServerError("no")))
    one.settle(Outcome(errors.ModelNotFound("no")))

    assert breakers.get("a").peek().failures == 1
    assert not breakers.exists("a/m")


def test_a_pass_that_breaks_leaves_no_other_unsettled(breakers: Breakers) -> None:
    """The answer is paid for: the walk returns it, and the other gates have their outcome."""
    before, broken = SpyGate(), SpyGate(breaks=True)
    house = House(breakers, before, broken)

    answered = house.walk()

    assert answered.completion.text == "hi"
    assert not answered.admits_all
    assert len(before.outcomes) == len(broken.outcomes) == 1


def test_a_dropped_pass_is_neutral(breakers: Breakers) -> None:
    """The probe's slot is given back, and nothing is counted."""
    health = HealthGate(settings_over("a"), breakers)
    health.breaker("a").half_open()
    one = Gates((health,)).admit(ask())
    assert breakers.get("a").peek().probes == 1

    del one
    gc.collect()

    ends_at = time.monotonic() + 60
    while breakers.get("a").peek().probes and time.monotonic() < ends_at:
        time.sleep(0.01)
    view = breakers.get("a").peek()
    assert (view.state, view.probes, view.failures, view.successes) == ("half-open", 0, 0, 0)


def test_the_estimate_is_computed_once_and_only_for_a_gate_that_reads_it(
    breakers: Breakers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The healthy path of a fleet without such a gate pays nothing for it."""
    calls: list[str] = []

    def count(*_: Any) -> Estimate:
        calls.append("estimate")
        return Estimate(1, None, None)

    monkeypatch.setattr("tasks.answering.trial.estimate", count)
    House(breakers, SpyGate()).walk()
    assert not calls

    House(breakers, SpyGate(reads_estimate=True), SpyGate(reads_estimate=True)).walk()
    assert calls == ["estimate"]


def test_an_estimate_has_tokens_and_cost_by_the_price_list(breakers: Breakers) -> None:
    """Four characters a token, the frame of a message, and the price of the most it may say."""
    gate = SpyGate(reads_estimate=True)
    house = House(breakers, gate)
    table = {"*": {"input_tokens": Decimal(1_000_000), "output_tokens": Decimal(2_000_000)}}
    for name, provider in house.settings.providers.items():
        house.settings.providers[name] = type(provider)(  # type: ignore[index]
            name, provider.adapter, provider.model, prices=table
        )

    house.walk("x" * 40, params={"max_output_tokens": 5})
    house.walk("模" * 7)

    assert gate.estimates == [
        Estimate(input_tokens=14, max_output_tokens=5, cost_usd=Decimal(24)),
        Estimate(input_tokens=11, max_output_tokens=None, cost_usd=None),
    ]


def commands_of(client: redis.Redis) -> dict[str, int]:
    """Return how often each command ran on the server, scripts' own commands included."""
    stats = client.info("commandstats")
    return {name: fields["calls"] for name, fields in stats.items()}  # type: ignore[union-attr]


WRITES = {"hset", "hdel", "xadd", "sadd", "del", "publish", "set", "expire"}


def test_a_look_takes_nothing_and_writes_nothing(redis_url: str) -> None:
    """Of a half-open breaker with one slot it may be repeated for ever."""
    client, breakers = redis.Redis.from_url(redis_url), Breakers.from_url(redis_url)
    health = HealthGate(settings_over("a"), breakers)
    health.breaker("a").half_open()
    gates = Gates((health,))
    client.config_resetstat()

    waits_s = [gates.opens_in_s(A) for _ in range(50)]

    ran = commands_of(client)
    assert waits_s == [0.0] * 50
    assert not WRITES & {name.removeprefix("cmdstat_") for name in ran}
    assert breakers.get("a").peek().probes == 0
    breakers.close()


def test_a_healthy_walk_asks_redis_once_to_admit_and_once_to_record(redis_url: str) -> None:
    """Two scripts a walk, as before there were gates; a gate that needs no Redis adds none."""
    client, breakers = redis.Redis.from_url(redis_url), Breakers.from_url(redis_url)
    house = House(breakers, SpyGate(), a=lambda _: answer("hi"))
    house.walk()
    breakers.exists("a/m")
    client.config_resetstat()

    for _ in range(10):
        house.walk()

    ran = commands_of(client)
    assert ran["cmdstat_evalsha"] == 20
    assert ran.get("cmdstat_smembers", 0) <= 10, (
        "names of pairs, once a second where nobody listens"
    )
    breakers.close()

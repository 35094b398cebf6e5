"""
An outage, seen from the provider: what the fleet sends to a dead primary, and when.

The simulator's log is the witness; the breaker's hash and its stream must tell the same story.
"""

import json
from itertools import pairwise
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import Fleet, fleet, wait_for

FAULTS = {
    "503": {"status": 503},
    "refused": {},
    "hang": {"kind": "hang"},
    "reset": {"kind": "reset"},
    "garbage": {"kind": "garbage"},
}
LONG = pytest.mark.long
SLACK_MS = 5_000
"""Calls admitted before the fifth failure was known may still arrive this much later."""

FLOOD = """
import json
from tasks import complete
asked = [complete.delay("coder", f"prompt {n}") for n in range(PROMPTS)]
print(json.dumps([result.get(timeout=180)["provider"] for result in asked]))
"""


@pytest.mark.parametrize(
    ("fault", "processes", "reset_s"),
    [
        pytest.param("503", 3, 10, marks=pytest.mark.slow),
        *(pytest.param(fault, 8, 30, marks=[LONG, pytest.mark.timeout(300)]) for fault in FAULTS),
    ],
)
def test_an_outage_costs_the_fleet_a_handful_of_calls(
    fault: str, processes: int, reset_s: int, redis_url: str, simulator: Simulator
) -> None:
    """
    Nothing is sent to a dead primary after the fifth failure until its time is up, then two at once.

    Every prompt is answered by the next of the chain meanwhile; the first pair of successes closes.
    """
    dead = simulator.url("dead", own_port=True)
    total_s = 60 if fault == "503" else 2
    roles = f"""
providers:
  dead: {{adapter: openai-chat, model: m, api_key: none, base_url: "{dead}/v1",
         timeout: {{connect_s: {total_s}, total_s: {total_s}}},
         breaker: {{fail_max: 5, reset_timeout_s: {reset_s}, success_threshold: 2}}}}
  next: {{adapter: openai-chat, model: m, api_key: k, base_url: "{simulator.url("next")}/v1"}}
roles:
  coder: {{chain: [dead, next]}}
"""
    concurrency = 50 // processes + 1
    shared = redis.Redis.from_url(redis_url, decode_responses=True)
    break_it(simulator, fault)
    with fleet(redis_url, roles) as workers:
        workers.start(processes, "threads", concurrency)

        first = flood(workers, 4 * concurrency * processes)
        opened = transitions(shared)[0]
        wait_for(lambda: is_due(shared), reset_s + 10)
        second = flood(workers, 50)  # the probes fail: it opens again
        wait_for(lambda: is_due(shared), reset_s + 10)
        simulator.heal("dead")
        third = flood(workers, 50)
        wait_for(lambda: hash_of(shared)["state"] == "closed", 10)
        fourth = flood(workers, 50)

    assert set(first) == {"next"}
    assert set(second) == {"next"}
    assert "dead" in third
    assert set(fourth) == {"dead"}
    story = transitions(shared)
    assert (opened["from"], opened["to"], opened["failures"]) == ("closed", "open", "5")
    steps = [(s["from"], s["to"]) for s in story]
    again = [("open", "half-open"), ("half-open", "open")]
    assert steps[0] == ("closed", "open")
    assert steps[1:-2] == again * (len(steps[1:-2]) // 2)
    assert len(steps) > 3
    assert steps[-2:] == [("open", "half-open"), ("half-open", "closed")]
    hits = simulator.hits("dead")
    assert_quiet_while_open(hits, story)
    assert_two_at_most_while_half_open(hits, story)
    state = hash_of(shared)
    assert (state["state"], state["failures"], state["successes"]) == ("closed", "0", "0")


def break_it(simulator: Simulator, fault: str) -> None:
    if fault == "refused":
        simulator.refuse("dead")
    else:
        simulator.fault("dead", **FAULTS[fault])


def flood(workers: Fleet, prompts: int) -> list[str]:
    """Enqueue that many prompts at once; return who answered each."""
    code = FLOOD.replace("PROMPTS", str(prompts))
    answered: list[str] = json.loads(workers.run(code, timeout_s=120))
    assert len(answered) == prompts
    return answered


def hash_of(shared: Any) -> dict[str, str]:
    state: dict[str, str] = shared.hgetall("breaker:{dead}")
    return state


def is_due(shared: Any) -> bool:
    seconds, micros = shared.time()
    return float(hash_of(shared)["open_until_ms"]) <= seconds * 1000 + micros / 1000


def transitions(shared: Any) -> list[dict[str, str]]:
    return [fields for _, fields in shared.xrange("breaker:{dead}:events")]


def assert_quiet_while_open(hits: list[dict[str, Any]], story: list[dict[str, str]]) -> None:
    """From each opening until half-open nothing starts, but for what was admitted before."""
    for opened, due in pairwise(story):
        if opened["to"] == "open":
            quiet_from, quiet_to = float(opened["at_ms"]) + SLACK_MS, float(due["at_ms"])
            assert not [h for h in hits if quiet_from < h["started_at_ms"] < quiet_to - 1]


def assert_two_at_most_while_half_open(
    hits: list[dict[str, Any]], story: list[dict[str, str]]
) -> None:
    """Between half-open and the next transition never more than two calls are in flight."""
    for half_open, ended in pairwise(story):
        if half_open["to"] == "half-open":
            probes = [
                h for h in hits
                if float(half_open["at_ms"]) - 1 <= h["started_at_ms"] < float(ended["at_ms"]) - 1
            ]  # fmt: skip
            assert max((h["in_flight"] for h in probes), default=0) <= 2

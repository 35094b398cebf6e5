"""A misspelt model and impatient callers take a provider from nobody else, with real workers."""

import json
from typing import Any

import redis

from simulator.client import Simulator
from tests.support.fleet import Fleet, wait_for

ASK = """
import json
from tasks import complete
print(json.dumps(complete.delay(%r, "hi").get(timeout=60)["attempts"]))
"""
IN_A_HURRY = """
import json
from tasks import complete
asked = [complete.apply_async(("planner", "hi"), {"deadline_s": 1}) for _ in range(6)]
found = []
for each in asked:
    try:
        each.get(timeout=60)
    except Exception as error:
        found.append([type(error).__name__, error.attempts])
print(json.dumps(found))
"""


def breakers(workers: Fleet) -> dict[str, Any]:
    """Return the fleet's breakers, as the command shows them."""
    shown = json.loads(workers.command("breakwater", "breakers", "--json").stdout)
    return {state["name"]: state for state in shown}


def test_a_misspelt_model_holds_its_pair_alone(workers: Fleet, simulator: Simulator) -> None:
    """One role asks for a model that is not there; the other role's is answered all the same."""
    simulator.settings("gpt", models=["gpt-6-luna"])
    text = workers.roles_file.read_text()
    chain = "chain: [{provider: gpt, model: gpt-6-lunaa}, claude]"
    workers.roles_file.write_text(text + f"  lost: {{{chain}}}\n")
    workers.start()

    first = json.loads(workers.run(ASK % "lost"))
    second = json.loads(workers.run(ASK % "lost"))
    other = json.loads(workers.run(ASK % "planner"))

    assert [(a["provider"], a["error"]) for a in first] == [
        ("gpt", "ModelNotFound"), ("claude", None),
    ]  # fmt: skip
    assert [(a["provider"], a["error"]) for a in second] == [
        ("gpt", "BreakerOpen"), ("claude", None),
    ]  # fmt: skip
    assert [(a["provider"], a["error"]) for a in other] == [("gpt", None)]
    states = breakers(workers)
    assert (states["gpt"]["state"], states["gpt"]["failures"]) == ("closed", 0)
    pair = states["gpt/gpt-6-lunaa"]
    assert (pair["state"], pair["reason"]) == ("open", "ModelNotFound")
    forced = workers.command("breakwater", "breakers", "force-closed", "gpt/gpt-6-lunaa")
    assert forced.returncode == 0, forced.stderr
    table = workers.command("breakwater", "breakers")
    assert "gpt/gpt-6-lunaa" in table.stdout


def test_callers_in_a_hurry_open_no_breaker(workers: Fleet, simulator: Simulator) -> None:
    """Six calls that their own deadlines cut; the patient caller is served by the same provider."""
    simulator.settings("gpt", latency=3)
    workers.start(1, "threads", 8)

    failed = json.loads(workers.run(IN_A_HURRY))

    assert [name for name, _ in failed] == ["DeadlineExceeded"] * 6
    assert {a["error"] for _, attempts in failed for a in attempts} <= {"DeadlineExceeded"}
    state = breakers(workers).get("gpt", {"state": "closed", "failures": 0})
    assert (state["state"], state["failures"]) == ("closed", 0)
    patient = json.loads(workers.run(ASK % "planner"))
    assert [(a["provider"], a["error"]) for a in patient] == [("gpt", None)]


def test_a_role_with_nothing_but_a_missing_model_waits_for_it(
    workers: Fleet, simulator: Simulator, redis_url: str
) -> None:
    """Its queue is parked by the pair's hold; a probe finds the model, and the task is answered."""
    simulator.settings("gpt", models=["gpt-6-luna"])
    text = workers.roles_file.read_text().replace(
        "model: gpt-6-luna}", "model: gpt-6-luna, breaker: {reset_timeout_s: 2}}"
    )
    workers.roles_file.write_text(text + "  only: {chain: [{provider: gpt, model: gpt-6-next}]}\n")
    workers.start()
    workers.run('from tasks import complete; complete.apply_async(("only", "hi"), task_id="waits")')
    server = redis.Redis.from_url(redis_url)
    wait_for(lambda: server.hexists("parked", "role.only"), explain=workers.logs)

    other = json.loads(workers.run(ASK % "planner"))
    simulator.settings("gpt", models=["gpt-6-luna", "gpt-6-next"])
    answered = json.loads(
        workers.run(
            "import json; from tasks import app; "
            "print(json.dumps(app.AsyncResult('waits').get(timeout=60)['attempts']))"
        )
    )

    assert [(a["provider"], a["error"]) for a in other] == [("gpt", None)]
    assert answered[-1]["error"] is None
    assert {a["error"] for a in answered[:-1]} <= {"ModelNotFound", "BreakerOpen"}

"""A schema through real workers: violated, asked again, handed on, and paid for."""

import json

import pytest

from simulator.client import Simulator
from tests.support.fleet import Fleet, wait_for

GOOD, BAD = '{"n": 1}', '{"n": "CANARY-ANSWER"}'
ASK = """
import json
from tasks import complete
schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
try:
    result = complete.apply_async(("coder", "CANARY-PROMPT"), {"schema": schema}, task_id="t1").get(timeout=40)
except Exception as error:
    result = {"error": type(error).__name__, "text": str(error), "attempts": error.attempts}
print(json.dumps(result))
"""


def ledger(workers: Fleet) -> list[dict[str, object]]:
    """The task's rows, as an operator sees them."""

    def told() -> list[dict[str, object]]:
        done = workers.command("breakwater", "why", "t1", "--json")
        rows: list[dict[str, object]] = json.loads(done.stdout)["attempts"] if done.stdout else []
        return rows if done.returncode == 0 and len(rows) >= 3 else []

    found: list[dict[str, object]] = wait_for(told, 30, workers.logs)
    return found


def test_a_violation_is_asked_again_and_then_handed_on(
    workers: Fleet, simulator: Simulator
) -> None:
    """Two calls of the first target, each a row of the ledger with its tokens, then the second."""
    workers.start()
    simulator.settings("local", answers=[BAD, "no JSON at all"])
    simulator.settings("claude", answers=[GOOD])

    result = json.loads(workers.run(ASK))

    assert (result["data"], result["provider"]) == ({"n": 1}, "claude")
    assert [(a["provider"], a["outcome"], a["error"]) for a in result["attempts"]] == [
        ("local", "failed", "SchemaViolated"),
        ("local", "failed", "SchemaViolated"),
        ("claude", "succeeded", None),
    ]
    assert [len(simulator.hits(name)) for name in ("local", "claude")] == [2, 1]
    rows = ledger(workers)
    assert [row["error"] for row in rows] == ["SchemaViolated", "SchemaViolated", ""]
    assert all(int(str(row["output_tokens"])) > 0 for row in rows)
    assert "breaks 'type' at /n" in str(rows[0]["why"])
    assert "CANARY" not in workers.logs() + json.dumps(rows)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_task_whose_answers_all_break_the_schema_fails(
    pool: str, workers: Fleet, simulator: Simulator
) -> None:
    """With place and rule, after two calls of each target; the breakers stay as they were."""
    workers.start(1, pool, 2)
    for name in ("local", "claude"):
        simulator.settings(name, answer=BAD)

    failed = json.loads(workers.run(ASK))

    assert failed["error"] == "SchemaViolated"
    assert failed["text"].startswith("local: the answer breaks 'type' at /n;")
    assert [a["provider"] for a in failed["attempts"]] == ["local", "local", "claude", "claude"]
    states = json.loads(workers.command("breakwater", "breakers", "--json").stdout)
    assert all((s["state"], s["failures"]) == ("closed", 0) for s in states)
    assert "CANARY" not in workers.logs()


@pytest.mark.slow
def test_who_violated_twice_is_not_asked_again_after_a_kill(
    workers: Fleet, simulator: Simulator
) -> None:
    """The next worker knows of both calls, and asks only whose answer the first one never heard."""
    workers.start()
    simulator.settings("local", answer=BAD)
    simulator.settings("claude", answer=GOOD, latency="held")
    workers.run(ASK.replace(".get(timeout=40)", "").replace("json.dumps(result)", "1"))
    wait_for(lambda: simulator.in_flight("claude"), 20, workers.logs)

    workers.workers[0].kill()
    simulator.settings("claude", answer=GOOD, latency=0)
    workers.start()

    result = json.loads(workers.run(ASK))
    assert (result["data"], result["provider"]) == ({"n": 1}, "claude")
    assert [(a["provider"], a["error"]) for a in result["attempts"]] == [
        ("local", "SchemaViolated"),
        ("local", "SchemaViolated"),
        ("claude", "WorkerLost"),
        ("local", "SchemaViolated"),
        ("claude", None),
    ]
    assert result["attempts"][3]["outcome"] == "rejected"
    assert [len(simulator.hits(name)) for name in ("local", "claude")] == [2, 2]

"""The whole way: a producer elsewhere, a real worker, the official SDKs, a simulated vendor."""

import json
import signal

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import KEYS, Fleet, wait_for

SERVED_BY = {"clarifier": "claude", "planner": "gpt", "coder": "local", "reviewer": "gemini"}

ASK_EACH = """
import json
from tasks import complete
asked = {role: complete.delay(role, "hi " + role) for role in %r}
print(json.dumps({role: result.get(timeout=180) for role, result in asked.items()}))
"""


@pytest.mark.slow
@pytest.mark.four_adapters
@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent", "solo"])
def test_each_pool_serves_each_adapter(pool: str, workers: Fleet) -> None:
    """A producer in another directory gets its answer through each adapter, whatever the pool."""
    workers.start(1, pool, 4)

    results = json.loads(workers.run(ASK_EACH % (list(SERVED_BY),)))

    for role, provider in SERVED_BY.items():
        result = results[role]
        assert result["text"].startswith(f"[{provider}] answer to")
        assert (result["role"], result["provider"]) == (role, provider)
        assert result["finish_reason"] == "stop"
        assert result["usage"]["input_tokens"] > 0
        assert result["usage"]["output_tokens"] > 0
        assert result["request_id"]
        assert [(a["provider"], a["outcome"]) for a in result["attempts"]] == [
            (provider, "succeeded")
        ]
        # A server of one's own has no price that anybody could know.
        assert (result["cost_usd"] is None) == (provider == "local")


def test_a_result_has_the_shape_that_was_promised(workers: Fleet) -> None:
    """Dashboards and other languages read these keys."""
    workers.start()

    result = json.loads(workers.run(ASK_EACH % (["coder"],)))["coder"]

    assert set(result) == {
        "task_id", "role", "text", "data", "tool_calls", "provider", "model", "finish_reason",
        "usage", "cost_usd", "latency_ms", "queued_ms", "request_id", "attempts",
    }  # fmt: skip
    assert set(result["usage"]) == {
        "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens",
        "reasoning_tokens",
    }  # fmt: skip
    assert set(result["attempts"][0]) == {
        "provider", "model", "outcome", "error", "status", "latency_ms", "cost_usd", "why",
    }  # fmt: skip


def test_a_producer_that_cannot_know_the_roles_uses_the_common_queue(workers: Fleet) -> None:
    """Without a roles file the prompt arrives all the same; the workers publish what is a typo."""
    workers.start()

    printed = workers.run(
        """
from tasks import complete
from breakwater.errors import UnknownRole
print(complete.delay("coder", "hi").get(timeout=180)["provider"])
try:
    complete.delay("codr", "hi").get(timeout=180)
except UnknownRole as error:
    print(error)
""",
        roles_known=False,
    )

    assert printed.splitlines()[0] == "local"
    assert "unknown role 'codr'" in printed
    assert "did you mean 'coder'?" in printed


def test_a_producer_with_the_roles_file_is_told_of_a_typo_at_once(workers: Fleet) -> None:
    """`delay()` itself refuses; nothing is queued. No worker runs here."""
    printed = workers.run("""
from tasks import complete
from breakwater.errors import UnknownRole
try:
    complete.delay("codr", "hi")
except UnknownRole as error:
    print(error)
""")

    assert "did you mean 'coder'?" in printed


def test_any_celery_application_can_enqueue_by_name(workers: Fleet) -> None:
    """`send_task` from a code base of its own, with no package of ours, and its prompt unseen."""
    workers.start(1, "threads", 4, "--task-events")

    printed = workers.run("""
import os, sys
from celery import Celery
url = os.environ["REDIS_URL"].partition("?")[0]  # Celery does not know the options of ours
app = Celery("theirs", broker=url, backend=url)
print(app.send_task("complete", ("coder", "CANARY-PROMPT")).get(timeout=180)["provider"])
print(app.send_task("complete", (), {"role": "planner", "prompt": "CANARY-PROMPT"}).get(timeout=180)["provider"])
print("tasks" in sys.modules)
""")

    assert printed.split() == ["local", "gpt", "False"]
    assert "CANARY-PROMPT" not in workers.log()
    assert "complete[coder]" in workers.log()


def test_typed_errors_arrive_with_their_attempts(workers: Fleet, simulator: Simulator) -> None:
    """At `.get()` the caller sees our error, its status, and what was tried."""
    workers.start()
    simulator.fault("gpt", "invalid")

    printed = workers.run("""
from tasks import complete
from breakwater.errors import InvalidRequest
try:
    complete.delay("planner", "hi").get(timeout=180)
except InvalidRequest as error:
    print(error.status, error.attempts[0]["provider"], error.attempts[0]["outcome"])
""")

    assert printed.split() == ["400", "gpt", "failed"]


@pytest.mark.slow
def test_a_task_waits_until_its_provider_is_back(workers: Fleet, simulator: Simulator) -> None:
    """With nobody to ask the task goes back to Redis, and is answered when one recovers."""
    workers.start()
    simulator.fault("gpt", status=503, first=3)

    result = json.loads(workers.run(ASK_EACH % (["planner"],)))["planner"]

    assert [a["outcome"] for a in result["attempts"]] == ["failed"] * 3 + ["succeeded"]
    assert len(simulator.hits("gpt")) == 4


def test_a_task_gives_up_at_its_deadline(workers: Fleet, simulator: Simulator) -> None:
    """When the wait is longer than what is left, the task fails and shows what was tried."""
    workers.start()
    simulator.fault("gpt", status=429, retry_after=100)

    printed = workers.run("""
from tasks import complete
from breakwater.errors import DeadlineExceeded
try:
    complete.delay("planner", "hi", deadline_s=90).get(timeout=180)
except DeadlineExceeded as error:
    print(error)
    print(error.attempts[0]["error"])
""")

    assert "no target of role 'planner' answered before the deadline" in printed
    assert "RateLimited" in printed


def test_ten_tasks_at_once_of_different_roles_do_not_mix(
    workers: Fleet, simulator: Simulator
) -> None:
    """Each task gets the answer to its own prompt, from its own role's provider and parameters."""
    workers.start(1, "threads", 10)
    for label in KEYS:
        simulator.settings(label, answer="echo", latency=0.2)

    printed = workers.run("""
import json
from tasks import complete
roles = ["clarifier", "planner", "coder", "reviewer"] * 3
asked = [(role, f"{role} {n}", complete.delay(role, f"{role} {n}")) for n, role in enumerate(roles)]
print(json.dumps([(role, prompt, r.get(timeout=180)) for role, prompt, r in asked]))
""")

    for role, prompt, result in json.loads(printed):
        assert prompt in result["text"]
        assert (result["role"], result["provider"]) == (role, SERVED_BY[role])


def test_four_stages_run_as_a_celery_chain(workers: Fleet, simulator: Simulator) -> None:
    """clarifier → planner → coder → reviewer; each takes the text before it, each tells who served."""
    workers.start()
    for label in KEYS:
        simulator.settings(label, answer="echo")

    printed = workers.run("""
import json
from celery import chain
from tasks import complete
last = chain(complete.s("clarifier", "a todo app"), complete.s("planner"),
             complete.s(role="coder"), complete.s("reviewer")).delay()
last.get(timeout=180)
stages = []
while last is not None:
    stages.insert(0, last.get(timeout=180))
    last = last.parent
print(json.dumps(stages))
""")

    stages = json.loads(printed)
    assert [(s["role"], s["provider"]) for s in stages] == list(SERVED_BY.items())
    assert all("a todo app" in stage["text"] for stage in stages)


@pytest.mark.slow
def test_inspect_shows_each_workers_own_view(workers: Fleet) -> None:
    """`celery inspect breakers` answers from every worker."""
    workers.start(2)
    workers.run(ASK_EACH % (list(SERVED_BY),))

    shown = json.loads(
        workers.command("celery", "-A", "workers", "inspect", "breakers", "--json").stdout
    )

    assert set(shown) == {"w0@test", "w1@test"}
    seen = [view for views in shown.values() for view in views.values()]
    assert seen
    assert {view["state"] for view in seen} == {"closed"}


def test_a_bad_roles_file_stops_the_worker_at_start(workers: Fleet) -> None:
    """Not later, not with a traceback: every fault on standard error, exit code not 0."""
    workers.roles_file.write_text("providers: {a: {adapter: anthropi}}\nroles: {r: {chain: [b]}}\n")

    done = workers.command("celery", "-A", "workers", "worker", "--pool", "solo")

    assert done.returncode == 78
    assert "did you mean 'anthropic'?" in done.stderr
    assert "roles.yaml:2" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_log_has_one_json_line_per_attempt(workers: Fleet, simulator: Simulator) -> None:
    """Role, provider, model, outcome, latency, tokens and why, for programs to read."""
    workers.start()
    simulator.fault("local", status=503)

    workers.run(ASK_EACH % (["coder"],))

    lines = [
        json.loads(line) for line in workers.log().splitlines() if '"event": "attempt"' in line
    ]
    assert [(x["provider"], x["outcome"]) for x in lines] == [
        ("local", "failed"), ("claude", "succeeded"),
    ]  # fmt: skip
    assert lines[1]["why"] == "after local: Overloaded"
    assert lines[1]["output_tokens"] > 0
    assert {"task_id", "role", "model", "latency_ms", "level", "timestamp"} <= lines[1].keys()


@pytest.mark.slow
@pytest.mark.four_adapters
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_no_key_and_no_prompt_is_left_anywhere(
    pool: str, workers: Fleet, simulator: Simulator, redis_url: str
) -> None:
    """
    Canaries through faults and answers: in no log, error, result, event, key or value.

    The prompt's own message is gone when its task is done.
    """
    workers.start(1, pool, 4, "--task-events")
    shared = redis.Redis.from_url(redis_url)
    shared.config_set("rdbcompression", "no")  # so that DUMP shows what is in a value
    listener = shared.pubsub()
    listener.psubscribe("*")
    for fault in ({"status": 401}, {"status": 400}, {"kind": "garbage"}, {"status": 429}, {}):
        if fault:
            simulator.fault("claude", **fault)
            simulator.fault("gpt", **fault)
        else:
            simulator.heal("claude")
            simulator.heal("gpt")
        printed = workers.run("""
from tasks import complete
for result in [
    complete.delay(role, prompt, system="CANARY-PROMPT", deadline_s=3)
    for role in ("clarifier", "planner")
    for prompt in ("CANARY-PROMPT", [{"role": "user", "content": "CANARY-PROMPT"}])
]:
    try:
        print(result.get(timeout=180))
    except Exception as error:
        print(repr(error), error.args)
""")
        assert "CANARY" not in printed
        shared.delete("breaker:{claude}", "breaker:{gpt}")
    workers.stop()

    assert "CANARY" not in workers.logs()
    heard = [message["data"] for message in iter(listener.get_message, None)]
    # What Celery publishes to reply to `.get()` and as events, and nothing else.
    assert not [data for data in heard if b"CANARY" in (data if isinstance(data, bytes) else b"")]
    assert not _canaries_in(shared)


def _canaries_in(shared: "redis.Redis") -> list[bytes]:
    return [
        key
        for key in shared.scan_iter()
        if key != b"dead:messages"  # the messages as they were queued, to be retried
        if b"CANARY" in key or b"CANARY" in (shared.dump(key) or b"")
    ]


def test_the_worker_stops_when_asked_and_finishes_what_runs(
    workers: Fleet, simulator: Simulator
) -> None:
    """SIGTERM: the running call is answered, then the process ends with code 0."""
    simulator.settings("local", latency="held")
    workers.start()
    asked = workers.run(
        'from tasks import complete; print(complete.delay("coder", "hi").id)'
    ).strip()
    wait_for(lambda: simulator.in_flight("local") == 1)

    workers.workers[0].send_signal(signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in workers.log(), explain=workers.log)
    simulator.release("local")
    workers.workers[0].wait(180)

    assert workers.workers[0].returncode == 0
    printed = workers.run(
        f'from tasks import app; print(app.AsyncResult("{asked}").get(timeout=180)["provider"])'
    )
    assert printed.strip() == "local"


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_the_providers_are_built_before_the_first_task(pool: str, workers: Fleet) -> None:
    """Else a pool of calls is let through to one that is down before the first of them fails."""
    (workers.folder / "slow.py").write_text("""
import sys

class Slow:
    def __init__(self, settings):
        print("built", settings.name, file=sys.stderr, flush=True)
        if settings.name == "broken":
            raise RuntimeError
    def close(self):
        pass
""")
    workers.environ["PYTHONPATH"] = str(workers.folder)
    workers.roles_file.write_text("""
providers:
  broken: {adapter: "slow:Slow", model: m}
  sound: {adapter: "slow:Slow", model: m}
roles:
  coder: {chain: [broken, sound]}
""")

    workers.start(1, pool, 1)

    wait_for(lambda: "built sound" in workers.log(), explain=workers.log)
    assert '"event": "provider.not_built"' in workers.log()
    assert "Traceback" not in workers.log()


def test_no_full_collection_looks_through_what_stays(workers: Fleet) -> None:
    """It would hold up every call in flight for as long as that takes, 0.2 s."""
    (workers.folder / "telling.py").write_text("""
import gc
from celery import signals

@signals.worker_ready.connect(weak=False)
def tell(**_):
    print("left out", gc.get_freeze_count() > 10 * len(gc.get_objects()), flush=True)
""")
    workers.start(1, "threads", 1, "--include", "telling")

    wait_for(lambda: "left out True" in workers.log(), explain=workers.log)

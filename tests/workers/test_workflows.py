"""Workflows on real workers: a run ends, and no stage that has an answer is paid for again."""

import json
import signal
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet

from simulator.client import Simulator
from tests.support.chaos import kill
from tests.support.fleet import KEYS, Fleet, wait_for

LONG = (pytest.mark.long, pytest.mark.timeout(400))
SERVED = {"clarify": "claude", "plan": "gpt", "code": "local", "review": "gemini"}
PRICE = ', prices: {"*": {input_tokens: 1, output_tokens: 2}}}'
WORKFLOWS = """
workflows:
  straight:
    - {name: clarify, role: clarifier, prompt: "{input}"}
    - {name: plan, role: planner, prompt: "Plan: {input} Answers: {clarify}"}
    - {name: code, role: coder, prompt: "{plan}", params: {temperature: 1}}
    - {name: review, role: reviewer, prompt: "Review: {code}"}
  feature:
    - {name: clarify, role: clarifier, prompt: "{input}"}
    - {name: plan, role: planner, prompt: "Plan: {input} Answers: {clarify}"}
    - loop:
        until: {stage: review, contains: "Review: Plan: x Answers: x Review: "}
        at_most: 3
        stages:
          - {name: code, role: coder, prompt: "{plan} {review}"}
          - {name: review, role: reviewer, prompt: "Review: {code}"}
  used-up:
    - loop: {until: {stage: code, contains: NEVER}, at_most: 2, stages: [
        {name: code, role: coder, prompt: "{input}{code}"}]}
    - {name: review, role: reviewer, prompt: "{code}"}
  judged:
    - {name: plan, role: planner, prompt: "{input}", schema: {type: object, properties: {title: {type: string}}}}
    - loop:
        until: {stage: review, equals: {ok: true}}
        at_most: 3
        stages:
          - {name: code, role: coder, prompt: "{plan.data.title} <{review.data.why}>"}
          - {name: review, role: reviewer, prompt: "{code}", schema: {type: object, required: [ok]}}
    - {name: told, role: clarifier, prompt: "{review.data.missing}"}
  to-fail:
    - loop: {until: {stage: code, contains: NEVER}, at_most: 2, or_fail: true, stages: [
        {name: code, role: coder, prompt: "{input}{code}"}]}
"""


@pytest.fixture
def echo(workers: Fleet, simulator: Simulator) -> Fleet:
    """No worker yet; every provider answers with the prompt, and the workflows above."""
    for label in KEYS:
        simulator.settings(label, answer="echo")
    text = workers.roles_file.read_text().replace("}\n  gpt", PRICE + "\n  gpt")
    workers.roles_file.write_text(text + WORKFLOWS)
    return workers


@pytest.fixture
def server(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=30)


def refuse_code(fleet: Fleet, simulator: Simulator) -> None:
    """Have the coder's prompt refused by the only target of its chain."""
    text = fleet.roles_file.read_text()
    fleet.roles_file.write_text(text.replace("chain: [local, claude]", "chain: [local]"))
    simulator.fault("local", "invalid")


def begin(fleet: Fleet, name: str = "straight", number: int = 1, given: str = "x") -> list[str]:
    printed = fleet.run(f"""
from tasks import workflow
for _ in range({number}):
    print(workflow({name!r}).delay({given!r}).id)
""")
    return printed.split()


def do(fleet: Fleet, run: str, what: str) -> Any:
    """Do something with a run; return what came of it, as JSON."""
    return json.loads(
        fleet.run(f"""
import json
from tasks import workflow
run = workflow.run({run!r})
try:
    print(json.dumps(run.{what}))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
""")
    )


def state_of(server: Any, run: str) -> str:
    return str(server.hget(f"workflow:{run}", "state"))


def wait_until(server: Any, fleet: Fleet, run: str, state: str, within_s: float = 40) -> None:
    wait_for(
        lambda: state_of(server, run) == state,
        within_s,
        lambda: f"{server.hgetall(f'workflow:{run}')} {fleet.logs()[-4000:]}",
    )


def turns(server: Any, run: str) -> dict[str, str]:
    """The state of each turn by its key."""
    return {
        name.removeprefix("turn:"): json.loads(told)["state"]
        for name, told in server.hgetall(f"workflow:{run}").items()
        if name.startswith("turn:")
    }


def hits(simulator: Simulator) -> dict[str, int]:
    return {stage: len(simulator.hits(label)) for stage, label in SERVED.items()}


def stage_lines(fleet: Fleet) -> list[dict[str, Any]]:
    return [json.loads(line) for line in fleet.logs().splitlines() if '"event": "stage"' in line]


def idle(server: Any) -> bool:
    """Tell whether nothing waits and nobody holds anything."""
    return not any(server.exists(k) for k in ("celery", *server.keys("role.*"), "taken", "delayed"))


def test_four_roles_work_on_one_feature_until_it_is_approved(
    echo: Fleet, simulator: Simulator
) -> None:
    """Each is given what those before it said; the loop's second round sees the first review."""
    echo.start()
    (run,) = begin(echo, "feature")

    result = do(echo, run, "get(timeout=180)")

    plan = "Plan: x Answers: x"
    review = f"Review: {plan} "
    assert result["text"] == f"Review: {plan} {review}"
    assert (result["workflow"], result["run"], result["role"]) == ("feature", run, "reviewer")
    assert [(each["stage"], each["round"], each["state"], each["until"]) for each in result["stages"]] == [
        ("clarify", 1, "succeeded", None), ("plan", 1, "succeeded", None),
        ("code", 1, "succeeded", None), ("review", 1, "succeeded", "unsatisfied"),
        ("code", 2, "succeeded", None), ("review", 2, "succeeded", "satisfied"),
    ]  # fmt: skip
    assert [each["provider"] for each in result["stages"]] == [
        "claude", "gpt", "local", "gemini", "local", "gemini",
    ]  # fmt: skip
    assert hits(simulator) == {"clarify": 1, "plan": 1, "code": 2, "review": 2}
    assert result["cost_usd"] is None  # of a server of one's own nobody knows the price


def test_data_ends_a_loop_and_goes_into_prompts_field_by_field(
    echo: Fleet, simulator: Simulator
) -> None:
    """A field that an answer does not have fails the stage that asks for it."""
    simulator.settings("gpt", answer='{"title": "Login"}')
    simulator.settings("gemini", answers=['{"ok": false, "why": "untested"}', '{"ok": true}'])
    echo.start()
    (run,) = begin(echo, "judged")

    error = do(echo, run, "get(timeout=180)")
    shown = do(echo, run, "state()")

    assert error == [
        "InvalidPrompt", "{review.data.missing}: the data of stage 'review' has no 'missing'",
    ]  # fmt: skip
    assert [(each["stage"], each["state"], each["until"]) for each in shown["stages"]] == [
        ("plan", "succeeded", None),
        ("code", "succeeded", None), ("review", "succeeded", "unsatisfied"),
        ("code", "succeeded", None), ("review", "succeeded", "satisfied"),
        ("told", "failed", None),
    ]  # fmt: skip
    assert hits(simulator) == {"clarify": 0, "plan": 1, "code": 2, "review": 2}


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_each_pool_runs_them(echo: Fleet, simulator: Simulator, server: Any, pool: str) -> None:
    """Also to the end of a cancellation by the stage's task."""
    echo.start(1, pool, 4)
    (run,) = begin(echo)
    assert do(echo, run, "get(timeout=180)")["text"] == "Review: Plan: x Answers: x"
    simulator.settings("gpt", answer="echo", latency="held")
    (stopped,) = begin(echo)
    wait_for(lambda: simulator.in_flight("gpt"))
    task_id = json.loads(server.hget(f"workflow:{stopped}", "turn:plan:1:1"))["task_id"]

    echo.run(f"from tasks import app; app.AsyncResult({task_id!r}).cancel()")

    wait_until(server, echo, stopped, "cancelled")


def test_each_end_of_a_stage_is_one_line_that_says_nothing_of_a_prompt(echo: Fleet) -> None:
    """Who served it, what it took and cost."""
    echo.start()
    (run,) = begin(echo, given="CANARY-INPUT")
    do(echo, run, "get(timeout=180)")

    lines = wait_for(lambda: (found := stage_lines(echo)) and len(found) == 4 and found)

    for line, (stage, provider) in zip(lines, SERVED.items(), strict=True):
        assert (line["workflow"], line["run"], line["stage"]) == ("straight", run, stage)
        assert (line["provider"], line["round"], line["state"]) == (provider, 1, "succeeded")
        assert {"role", "model", "latency_ms", "cost_usd"} <= set(line)
    assert "CANARY-INPUT" not in echo.logs()


@pytest.mark.slow
def test_a_loop_that_is_used_up_goes_on_and_says_so_or_fails(echo: Fleet) -> None:
    """As the workflow wants it."""
    echo.start()
    (goes_on,), (fails,) = begin(echo, "used-up"), begin(echo, "to-fail")

    went_on = do(echo, goes_on, "get(timeout=180)")
    failed = do(echo, fails, "get(timeout=180)")

    assert [each["until"] for each in went_on["stages"]] == ["unsatisfied", "exhausted", None]
    assert went_on["text"] == "xx"
    assert failed == [
        "LoopExhausted",
        "the loop of stage 'code' ended after 2 rounds, and its `until` never held",
    ]


@pytest.mark.parametrize(
    "at", ["gpt", *(pytest.param(label, marks=LONG) for label in ("claude", "local", "gemini"))]
)
def test_a_worker_is_killed_while_a_stage_runs(
    echo: Fleet, simulator: Simulator, server: Any, at: str
) -> None:
    """The stage is asked again, the finished ones are not."""
    simulator.settings(at, answer="echo", latency="held")
    echo.start()
    (run,) = begin(echo)
    wait_for(lambda: simulator.in_flight(at) == 1)

    kill(echo, 0)
    simulator.settings(at, answer="echo", latency=0)
    echo.start()

    wait_until(server, echo, run, "succeeded")
    assert hits(simulator) == {stage: 1 + (label == at) for stage, label in SERVED.items()}


DIES = """
import os, signal
from breakwater.workflows.run_store import RunStore
name, number, when = os.environ["DIES_AT"].split()
real, calls = getattr(RunStore, name), []
def dying(*args, **kwargs):
    calls.append(1)
    if when == "before" and len(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    answer = real(*args, **kwargs)
    if when == "after" and len(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
setattr(RunStore, name, dying)
"""
POINTS = (
    "snapshot 1 before",  # it has the message
    "move 1 after",  # the first stage is begun, and not in its queue
    "mark_sent 1 before",  # it is in its queue
    "mark_sent 1 after",
    "move 2 before",  # the answer is in hand, and not in the run
    "move 2 after",  # it is
    "move 3 after",  # the second stage is begun
)


@pytest.mark.slow
def test_the_step_between_two_stages_is_killed_at_every_point(
    echo: Fleet, simulator: Simulator, server: Any
) -> None:
    """Whoever is given it again goes on where the run stands; each stage is paid for once."""
    (echo.folder / "dies.py").write_text(DIES)
    echo.environ["PYTHONPATH"] = str(echo.folder)
    runs = []
    for point in POINTS:
        echo.environ["DIES_AT"] = point
        number = echo.start_one("solo", 1, "--include", "dies")
        runs += begin(echo)
        wait_for(
            lambda n=number: echo.workers[n].poll() == -signal.SIGKILL,
            30,
            lambda n=number: echo.log(n),
        )

    echo.start(1, "threads", 4)

    for run in runs:
        wait_until(server, echo, run, "succeeded")
    wait_for(lambda: idle(server))
    assert hits(simulator) == dict.fromkeys(SERVED, len(POINTS))
    told = [(line["run"], line["stage"]) for line in stage_lines(echo)]
    assert len(told) == len(set(told))


@pytest.mark.slow
def test_a_run_whose_message_is_lost_goes_on_when_it_is_resumed(
    echo: Fleet, simulator: Simulator, server: Any
) -> None:
    """That of the step, and that of a stage; what has an answer is not asked again."""
    (run,) = begin(echo)
    assert server.delete("celery") == 1  # as a server does that loses its last second
    echo.start(1, "threads", 4, "-Q", "celery")
    assert do(echo, run, "resume()") is True
    wait_for(lambda: server.llen("role.clarifier") == 1)
    assert server.delete("role.clarifier") == 1
    echo.stop()
    echo.start()

    assert state_of(server, run) == "running"
    assert do(echo, run, "resume()") is True

    wait_until(server, echo, run, "succeeded")
    assert do(echo, run, "resume()") is False
    assert hits(simulator) == dict.fromkeys(SERVED, 1)


@pytest.mark.slow
def test_a_run_fails_with_its_stages_error_and_goes_on_there_when_it_is_resumed(
    echo: Fleet, simulator: Simulator, server: Any
) -> None:
    """The finished stages stay finished; the failed one is asked under another id."""
    refuse_code(echo, simulator)
    echo.start()
    (run,) = begin(echo)

    error = do(echo, run, "get(timeout=180)")
    shown = do(echo, run, "state()")
    simulator.heal("local")
    assert do(echo, run, "resume()") is True
    result = do(echo, run, "get(timeout=180)")

    assert error[0] == "InvalidRequest"
    assert (shown["state"], shown["error"]["type"]) == ("failed", "InvalidRequest")
    assert shown["error"]["message"] == error[1]
    assert [(each["stage"], each["try"], each["state"], each["error"]) for each in result["stages"]] == [
        ("clarify", 1, "succeeded", None), ("plan", 1, "succeeded", None),
        ("code", 1, "failed", "InvalidRequest"), ("code", 2, "succeeded", None),
        ("review", 1, "succeeded", None),
    ]  # fmt: skip
    assert len({each["task_id"] for each in result["stages"]}) == 5
    assert hits(simulator) == {"clarify": 1, "plan": 1, "code": 2, "review": 1}
    assert [line["state"] for line in stage_lines(echo)].count("failed") == 1


@pytest.mark.slow
def test_a_dead_letter_that_is_answered_on_its_second_life_is_not_paid_for_again(
    echo: Fleet, simulator: Simulator, server: Any
) -> None:
    """A resumption takes the answer that its stage has by then."""
    refuse_code(echo, simulator)
    echo.start()
    (run,) = begin(echo)
    wait_until(server, echo, run, "failed")
    simulator.heal("local")
    assert echo.command("breakwater", "dead", "retry", "--all", "--yes").returncode == 0
    wait_for(lambda: len(simulator.hits("local")) == 2 and idle(server))

    assert do(echo, run, "resume()") is True

    wait_until(server, echo, run, "succeeded")
    assert hits(simulator) == {"clarify": 1, "plan": 1, "code": 2, "review": 1}


@pytest.mark.slow
@pytest.mark.parametrize("when", ["begun", "waiting", "out"])
def test_a_cancelled_run_stops_there_and_goes_on_when_it_is_resumed(
    echo: Fleet, simulator: Simulator, server: Any, when: str
) -> None:
    """Before any worker has snapshot it, while its stage waits in a queue, while the call is out."""
    simulator.settings("gpt", answer="echo", latency="held")
    if when == "waiting":
        echo.start(1, "threads", 4, "-Q", "celery,role.clarifier")
    elif when == "out":
        echo.start()
    (run,) = begin(echo)
    if when == "waiting":
        wait_for(lambda: server.llen("role.planner") == 1)
    elif when == "out":
        wait_for(lambda: simulator.in_flight("gpt") == 1)

    assert do(echo, run, "cancel()") is True
    assert do(echo, run, "get(timeout=180)")[0] == "TaskRevokedError"
    wait_for(lambda: simulator.in_flight("gpt") == 0)
    echo.stop()
    echo.start()
    wait_for(lambda: idle(server), 40)
    at_the_end, snapshot = hits(simulator), turns(server, run)
    simulator.settings("gpt", latency=0)
    assert do(echo, run, "cancel()") is True  # again, and nothing changes
    assert do(echo, run, "resume()") is True
    wait_until(server, echo, run, "succeeded")

    begun = when != "begun"
    assert snapshot["plan:1:1"] == ("cancelled" if begun else "pending")
    assert at_the_end == {"clarify": int(begun), "plan": int(when == "out"), "code": 0, "review": 0}
    assert hits(simulator) == {**dict.fromkeys(SERVED, 1), "plan": 1 + (when == "out")}
    assert do(echo, run, "cancel()") is False
    told = [line["stage"] for line in stage_lines(echo) if line["state"] == "cancelled"]
    assert told == (["plan"] if begun else [])


@pytest.mark.slow
@pytest.mark.parametrize("when", ["waiting", "out"])
def test_who_cancels_a_stages_task_cancels_the_run(
    echo: Fleet, simulator: Simulator, server: Any, when: str
) -> None:
    """It is a task as any other; the run does not wait for it for ever."""
    simulator.settings("gpt", answer="echo", latency="held")
    queues = "celery,role.clarifier" + (",role.planner" if when == "out" else "")
    echo.start(1, "threads", 4, "-Q", queues)
    (run,) = begin(echo)
    wait_for(lambda: simulator.in_flight("gpt") if when == "out" else server.llen("role.planner"))
    task_id = json.loads(server.hget(f"workflow:{run}", "turn:plan:1:1"))["task_id"]

    echo.run(f"from tasks import app; app.AsyncResult({task_id!r}).cancel()")
    if when == "waiting":
        echo.start()

    wait_until(server, echo, run, "cancelled")
    assert turns(server, run)["plan:1:1"] == "cancelled"


CANCEL_ALL = """
import random, sys, threading, time
from tasks import workflow
runs = [workflow("straight").delay("x") for _ in range(20)]
def cancel(run):
    time.sleep(random.uniform(0, 0.6))
    run.cancel()
threads = [threading.Thread(target=cancel, args=(run,)) for run in runs]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*(run.id for run in runs))
"""


@pytest.mark.slow
def test_a_cancellation_that_races_with_a_step_has_the_last_word_or_comes_too_late(
    echo: Fleet, simulator: Simulator, server: Any
) -> None:
    """Twenty at once: each is over at once, no turn is left running, and nothing follows."""
    for label in KEYS:
        simulator.settings(label, answer="echo", latency="uniform:0.01:0.1")
    echo.start(2, "threads", 8)

    runs = echo.run(CANCEL_ALL).split()
    at_once = {run: (state_of(server, run), turns(server, run)) for run in runs}
    wait_for(lambda: idle(server))

    ended = [state for state, _ in at_once.values()]
    assert set(ended) <= {"cancelled", "succeeded"}
    assert "cancelled" in ended
    for run, (state, snapshot) in at_once.items():
        assert "running" not in snapshot.values()
        assert (state_of(server, run), turns(server, run)) == (state, snapshot)


@pytest.mark.slow
def test_runs_end_though_redis_was_silent_for_a_while(
    echo: Fleet, simulator: Simulator, server: Any
) -> None:
    """Longer than anybody waits for its answer; no stage is paid for twice."""
    for label in KEYS:
        simulator.settings(label, answer="echo", latency="uniform:0.1:0.5")
    echo.start(2, "threads", 8)
    runs = begin(echo, number=10)
    wait_for(lambda: len(simulator.hits("gpt")) > 2)

    server.client_pause(7000, all=True)

    for run in runs:
        wait_until(server, echo, run, "succeeded", 60)
    assert hits(simulator) == dict.fromkeys(SERVED, 10)


@pytest.mark.slow
def test_twenty_runs_at_once_are_each_their_own(
    echo: Fleet, simulator: Simulator, server: Any
) -> None:
    """Over two workers; each stage of each is paid for once."""
    echo.start(2, "threads", 8)

    printed = echo.run("""
from tasks import workflow
runs = [workflow("feature").delay(f"<{n}>", run_id=f"r{n}") for n in range(20)]
assert runs[0].id == workflow("feature").delay("other", run_id="r0").id
print(*(f"<{n}>" in run.get(timeout=180)["text"] for n, run in enumerate(runs)))
""")

    assert printed.split() == ["True"] * 20
    wait_for(lambda: idle(server))
    assert hits(simulator) == {"clarify": 20, "plan": 20, "code": 60, "review": 60}


@pytest.mark.slow
def test_with_keys_nothing_of_a_run_is_in_the_clear(
    echo: Fleet, simulator: Simulator, redis_url: str, server: Any
) -> None:
    """Neither the definition, the input, an answer, nor an error; while it runs, and after."""
    echo.environ["BREAKWATER_ENCRYPTION_KEYS"] = Fernet.generate_key().decode()
    text = echo.roles_file.read_text().replace("Review: {code}", "CANARY-PROMPT {code}")
    echo.roles_file.write_text(text)
    simulator.settings("gpt", answer="echo", latency="held")
    shared = redis.Redis.from_url(redis_url)
    shared.config_set("rdbcompression", "no")

    def everything() -> bytes:
        return b"".join(key + (shared.dump(key) or b"") for key in shared.scan_iter())

    (run,) = begin(echo, given="CANARY-INPUT")
    snapshot = everything()
    echo.start()
    wait_for(lambda: simulator.in_flight("gpt") == 1)
    snapshot += everything()
    simulator.settings("gpt", latency=0)
    simulator.release("gpt")
    result = do(echo, run, "get(timeout=180)")
    simulator.fault("gpt", "invalid")
    (failing,) = begin(echo, given="CANARY-INPUT")
    error = do(echo, failing, "get(timeout=180)")
    snapshot += everything()
    shared.config_set("rdbcompression", "yes")

    assert "CANARY-INPUT" in result["text"]
    assert error[0] == "InvalidRequest"
    assert shared.hget(f"workflow:{run}", "state") == b"succeeded"
    for canary in (b"CANARY", b"Q0FOQVJZ"):  # in the clear, and in base64
        assert canary not in snapshot, canary


@pytest.mark.slow
def test_a_run_takes_its_answers_along_when_the_results_are_gone(
    echo: Fleet, simulator: Simulator, server: Any
) -> None:
    """Results live a day; a run may stand still for longer."""
    refuse_code(echo, simulator)
    echo.start()
    (run,) = begin(echo)
    wait_until(server, echo, run, "failed")
    wait_for(lambda: idle(server))
    for key in server.keys("celery-task-meta-*"):
        server.delete(key)
    simulator.heal("local")

    assert do(echo, run, "resume()") is True
    result = do(echo, run, "get(timeout=180)")

    assert result["text"] == "Review: Plan: x Answers: x"
    assert hits(simulator) == {"clarify": 1, "plan": 1, "code": 2, "review": 1}


@pytest.mark.slow
def test_a_run_that_is_not_there_or_not_over_is_told_as_such(echo: Fleet) -> None:
    """The one at once, the other after the time that was given."""
    (run,) = begin(echo)

    assert do(echo, "nobody", "state()")[0] == "UnknownRun"
    assert do(echo, run, "get(timeout=0.1)")[0] == "TimeoutError"

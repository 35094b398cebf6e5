"""Celery's canvas over `complete`: groups, chords, chains of groups, and what is linked."""

import json
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import KEYS, Fleet, wait_for


@pytest.fixture
def echo(workers: Fleet, simulator: Simulator) -> Fleet:
    """One worker; every provider answers with the prompt."""
    for label in KEYS:
        simulator.settings(label, answer="echo")
    workers.start()
    return workers


@pytest.fixture
def server(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url, decode_responses=True)


def asked(simulator: Simulator) -> dict[str, int]:
    """How often each provider was called, of those that were."""
    return {label: n for label in KEYS if (n := len(simulator.hits(label)))}


@pytest.mark.slow
def test_a_group_answers_in_order(echo: Fleet) -> None:
    """Each of its members is a task of its own."""
    printed = echo.run("""
from celery import group
from tasks import complete
those = group(complete.s("coder", f"<{n}>") for n in range(20))().get(timeout=180)
print([f"<{n}>" in each["text"] for n, each in enumerate(those)].count(True))
""")

    assert printed.split() == ["20"]


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ('complete.s("reviewer")', "texts"),
        ('complete.s(role="reviewer")', "texts"),
        ('complete.si("reviewer", "its own")', "its own"),
    ],
)
def test_a_chords_body_is_asked_with_the_texts_of_its_header(
    echo: Fleet, body: str, prompt: str
) -> None:
    """All of them, in order; unless it is immutable."""
    printed = echo.run(f"""
from celery import chord
from tasks import complete
header = [complete.s(role, f"<{{role}}>") for role in ("clarifier", "planner", "coder")]
done = chord(header)({body})
texts = chr(10) * 2
print(done.get(timeout=180)["provider"])
print(texts.join(each["text"] for each in done.parent.get(timeout=180)) in done.get()["text"])
print("its own" in done.get()["text"])
""")

    assert printed.split() == ["gemini", str(prompt == "texts"), str(prompt == "its own")]


def test_a_chain_goes_through_a_group(echo: Fleet, simulator: Simulator) -> None:
    """One asks, two answer, one reviews both."""
    printed = echo.run("""
from celery import chain, group
from tasks import complete
both = group(complete.s("planner"), complete.s("coder"))
print(chain(complete.s("clarifier", "a todo app"), both, complete.s("reviewer")).delay().get(timeout=180)["text"].count("a todo app"))
""")

    assert printed.split() == ["2"]
    assert asked(simulator) == dict.fromkeys(KEYS, 1)


def test_a_chord_fails_with_its_part(echo: Fleet, simulator: Simulator) -> None:
    """Whoever waits is told which; the body is not paid for."""
    simulator.fault("gpt", "invalid")

    printed = echo.run("""
from celery import chord
from tasks import complete
done = chord([complete.s("coder", "a"), complete.s("planner", "b")])(complete.s("reviewer"))
error = done.get(timeout=180, propagate=False)
print(type(error).__name__, "raised InvalidRequest" in str(error))
""")

    assert printed.split() == ["ChordError", "True"]
    assert "gemini" not in asked(simulator)


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_a_chord_fails_with_a_part_that_is_cancelled(
    workers: Fleet, simulator: Simulator, server: Any, when: str
) -> None:
    """Before a worker has seen it, or while its call is out."""
    simulator.settings("gpt", latency="held")
    header, body = "the-part", "the-body"
    start = f"""
from celery import chord
from tasks import complete
chord([complete.s("coder", "a"), complete.s("planner", "b").set(task_id={header!r})])(
    complete.s("reviewer").set(task_id={body!r}))
"""
    cancel = f"from tasks import app; app.AsyncResult({header!r}).cancel()"
    if when == "waiting":
        workers.run(start + cancel)
        workers.start()
    else:
        workers.start()
        workers.run(start)
        wait_for(lambda: simulator.in_flight("gpt") == 1)
        workers.run(cancel)

    meta = json.loads(wait_for(lambda: server.get(f"celery-task-meta-{body}"), 30, workers.logs))

    assert (meta["status"], meta["result"]["exc_type"]) == ("FAILURE", "ChordError")
    assert "gemini" not in asked(simulator)


def test_what_is_linked_is_asked_with_the_answer(echo: Fleet, simulator: Simulator) -> None:
    """As a task of its own."""
    printed = echo.run("""
from tasks import app, complete
complete.apply_async(("coder", "<first>"), link=complete.s("planner").set(task_id="linked"))
print(app.AsyncResult("linked").get(timeout=180)["text"])
""")

    assert "<first>" in printed
    assert asked(simulator) == {"local": 1, "gpt": 1}


@pytest.mark.parametrize("sign", ["s", "si"])
def test_what_is_linked_to_a_failure_is_asked_as_it_stands(
    echo: Fleet, simulator: Simulator, sign: str
) -> None:
    """As a task of its own, from its own queue, and not when all is well."""
    simulator.fault("gpt", "invalid")

    printed = echo.run(f"""
from tasks import app, complete
def on_failure(task_id):
    return complete.{sign}("coder", "<apology>").set(task_id=task_id)
complete.apply_async(("clarifier", "hi"), link_error=on_failure("not asked")).get(timeout=180)
complete.apply_async(("planner", "hi"), link_error=on_failure("linked"))
print(app.AsyncResult("linked").get(timeout=180)["text"])
print(app.AsyncResult("not asked").status)
""")

    assert "<apology>" in printed
    assert "PENDING" in printed
    assert asked(simulator) == {"claude": 1, "gpt": 1, "local": 1}
    assert "Errback" not in echo.log()


@pytest.mark.parametrize(("role", "fault"), [("clarifier", None), ("planner", "invalid")])
def test_what_is_linked_to_a_task_that_is_enqueued_twice_is_paid_for_once(
    echo: Fleet, simulator: Simulator, server: Any, role: str, fault: str | None
) -> None:
    """As the task itself, whose second delivery finds it settled."""
    if fault:
        simulator.fault("gpt", fault)
    enqueue = f"""
from tasks import complete
linked = complete.si("reviewer", "<linked>")
complete.apply_async(({role!r}, "hi"), task_id="the-one", link=linked, link_error=linked)
"""

    for number in (1, 2):
        echo.run(enqueue)  # a line when it is received, and one when it is done
        wait_for(lambda n=number: echo.log().count("Task complete[reviewer]") == 2 * n)
    wait_for(lambda: not server.exists("taken"))

    assert len(simulator.hits("gemini")) == 1


def test_a_handler_of_another_code_base_is_given_the_failed_task(
    echo: Fleet, simulator: Simulator, server: Any
) -> None:
    """Its message waits in its own queue, the id in front, as Celery promises."""
    simulator.fault("gpt", "invalid")

    task_id = echo.run("""
from celery import Signature
from tasks import complete
theirs = Signature("theirs.failed", options={"queue": "theirs"})
print(complete.apply_async(("planner", "hi"), link_error=theirs).id)
""").strip()

    message = json.loads(wait_for(lambda: server.lindex("theirs", 0), 20, echo.logs))
    assert message["headers"]["task"] == "theirs.failed"
    assert message["headers"]["parent_id"] == task_id


def test_a_stage_that_cannot_be_queued_fails_the_chain(echo: Fleet) -> None:
    """A producer that cannot know the roles finds out at the end, and does not wait for ever."""
    printed = echo.run(
        """
from celery import chain
from tasks import complete
from breakwater.errors import UnknownRole
try:
    chain(complete.s("coder", "hi"), complete.s("planer"), complete.s("reviewer")).delay().get(timeout=180)
except UnknownRole as error:
    print(error)
""",
        roles_known=False,
    )

    assert "did you mean 'planner'?" in printed


def test_a_starmap_is_a_group(echo: Fleet, simulator: Simulator) -> None:
    """Celery's own runs all in one worker, where none would be settled by itself."""
    printed = echo.run("""
from tasks import complete
those = complete.starmap([("coder", "<a>"), ("planner", "<b>")]).delay().get(timeout=180)
print("<a>" in those[0]["text"], "<b>" in those[1]["text"])
""")

    assert printed.split() == ["True", "True"]
    assert asked(simulator) == {"local": 1, "gpt": 1}


@pytest.mark.parametrize("call", ["map(['hi'])", "chunks([('coder', 'hi')], 10)"])
def test_what_would_run_many_in_one_is_refused_at_the_producer(workers: Fleet, call: str) -> None:
    """With the word for what works. No worker runs here."""
    printed = workers.run(f"""
from tasks import complete
from breakwater.errors import UnknownTask
try:
    complete.{call}
except UnknownTask as error:
    print(error)
""")

    assert "complete.starmap([(role, prompt), …])" in printed

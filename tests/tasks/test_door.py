"""What is refused where a call is enqueued: ids, options in the wrong place, an id used again."""

import subprocess
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import chain, chord, group
from cryptography.fernet import Fernet

from breakwater.calls import execution_options
from breakwater.calls.options import CELERY_OPTIONS
from breakwater.errors import BadCalls, BadTask, InvalidOption
from tasks import app, complete
from tests.tasks.conftest import Use

BAD_IDS = {
    "empty": ("", "task_id is an empty string"),
    "256 characters": ("x" * 256, "task_id is a string of 256 characters"),
    "a line break": ("a\nb", "task_id is a string with control characters"),
    "NUL": ("a\0b", "with control characters"),
    "an escape sequence": ("\x1b[2J", "with control characters"),
    "right-to-left override": ("a\u202eb", "with control characters"),
    "half a surrogate pair": ("a\ud800", "with control characters"),
    "bytes": (b"abc", "task_id is a bytes"),
    "a number": (7, "task_id is a int"),
    "a UUID": (uuid.UUID(int=1), "task_id is a UUID"),
    "a list": (["a"], "task_id is a list"),
}
WAYS = {
    "apply_async": lambda id_: complete.apply_async(("coder", "hi"), task_id=id_),
    "delay_many": lambda id_: complete.delay_many([("coder", "hi")], task_ids=[id_]),
    "set": lambda id_: complete.s("coder", "hi").set(task_id=id_),
    "signature": lambda id_: complete.signature(("coder", "hi"), options={"task_id": id_}),
    "apply_async of a signature": lambda id_: complete.s("coder", "hi").apply_async(task_id=id_),
    "send_task": lambda id_: app.send_task("complete", ("coder", "hi"), task_id=id_),
    "a plain signature": lambda id_: app.signature(
        "complete", args=("coder", "hi"), options={"task_id": id_}
    ).apply_async(),
    "a later stage": lambda id_: chain(
        complete.s("coder", "hi"),
        app.signature("complete", args=("coder",), options={"task_id": id_}),
    ).apply_async(),
    "a link": lambda id_: complete.apply_async(
        ("coder", "hi"), link=app.signature("complete", ("coder",), options={"task_id": id_})
    ),
    "a chord's body": lambda id_: chord(
        [complete.s("coder", "hi")], app.signature("complete", ("coder",), options={"task_id": id_})
    ).apply_async(),
}


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("way", ["apply_async", "delay_many", "set", "send_task"])
def test_an_id_that_no_worker_takes_is_refused(shared: Any, way: str, bad: str) -> None:
    """Else its caller waits for ever."""
    task_id, said = BAD_IDS[bad]

    with pytest.raises(InvalidOption, match=said) as refused:
        WAYS[way](task_id)

    assert "1 to 255 printable characters" in str(refused.value)
    assert shared.dbsize() == 0


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_enqueueing_refuses_it(shared: Any, way: str) -> None:
    """Also for what a worker is to enqueue later."""
    with pytest.raises(InvalidOption, match="task_id is a string of 300 characters"):
        WAYS[way]("x" * 300)

    assert not shared.keys("role.*")
    assert not shared.exists("celery")


@pytest.mark.parametrize("good", ["x" * 255, "order 7/2026", "größe-☃", "0"])
def test_any_printable_id_is_taken(shared: Any, good: str) -> None:
    """As Celery takes it."""
    assert complete.apply_async(("coder", "hi"), task_id=good).id == good
    assert shared.llen("role.coder") == 1


MISPLACED = {
    "schema": {"type": "object"}, "system": "s", "params": {"temperature": 0}, "metadata": {},
    "deadline_s": 5, "tools": [], "tool_choice": "auto", "stream": True, "role": "coder",
    "prompt": "hi",
}  # fmt: skip


@pytest.mark.parametrize("name", MISPLACED)
def test_an_option_of_ours_among_celerys_is_refused(shared: Any, name: str) -> None:
    """Celery would drop it, and the prompt be paid for without it."""
    option = {name: MISPLACED[name]}

    with pytest.raises(InvalidOption) as refused:
        complete.apply_async(("coder", "hi"), **option)
    with pytest.raises(InvalidOption, match=rf"write complete\.s\(role, prompt, {name}=…\)"):
        complete.s("coder", "hi").set(**option)
    with pytest.raises(InvalidOption, match=f"{name} is an option of complete"):
        complete.signature(("coder", "hi"), **option)
    with pytest.raises(InvalidOption, match=f"{name} is an option of complete"):
        complete.s("coder", "hi").clone().set(**option)
    with pytest.raises(InvalidOption, match=f"{name} is an option of complete"):
        complete.s("coder", "hi").apply_async(**option)

    assert str(refused.value) == (
        f"{name} is an option of complete, not of apply_async(): "
        f"write apply_async((role, prompt), {{'{name}': …}})"
    )
    assert shared.dbsize() == 0


def test_a_misplaced_option_of_a_later_stage_is_refused(shared: Any) -> None:
    """Also in a signature that was made by its name."""
    later = app.signature("complete", args=("coder",), options={"schema": {}})

    with pytest.raises(InvalidOption, match=r"write complete\.s\(role, prompt, schema=…\)"):
        chain(complete.s("coder", "hi"), later).apply_async()

    assert not shared.keys("role.*")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: complete.s("coder", "hi", countdown=5), r"complete\.s\(…\)\.set\(countdown=…\)"),
        (lambda: complete.si("coder", "hi", queue="q"), r"complete\.s\(…\)\.set\(queue=…\)"),
        (lambda: complete.s("coder", "hi", task_id="a"), r"complete\.s\(…\)\.set\(task_id=…\)"),
        (lambda: complete.s("coder", "hi", schemas={}), "did you mean 'schema'"),
        (
            lambda: complete.delay("coder", "hi", countdown=5),
            r"'countdown': it is Celery's; write apply_async\(\(role, prompt\), countdown=…\)",
        ),
        (lambda: complete.apply_async(("coder", "hi"), {"task_id": "a"}), "prompt\\), task_id=…"),
        (
            lambda: complete.delay("coder", "hi", temperature=0),
            "'temperature': it is a parameter; write params={'temperature': …}",
        ),
        (lambda: complete.delay("coder", "hi", model="x"), "'model'; there are system, params, "),
        (lambda: complete.starmap([("coder", "hi")]).apply_async(schema={}), "schema is an option"),
        (lambda: complete.chunks([("coder", "hi")], 1), "use complete.starmap"),
    ],
)
def test_options_in_the_wrong_place_of_a_signature_are_refused(
    shared: Any, make: Any, said: str
) -> None:
    """When the signature is made, not when a stage before it has been paid for."""
    with pytest.raises(BadTask, match=said):
        make()

    assert not shared.keys("role.*")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"countdown": "5"}, "countdown is '5'; it must be a number of seconds"),
        ({"countdown": True}, "countdown is a bool; it must be a number of seconds"),
        ({"countdown": float("nan")}, "countdown is nan; it must be a number of seconds"),
        ({"countdown": float("inf")}, "countdown is inf"),
        ({"eta": 5}, "eta is 5; it must be a datetime"),
        ({"eta": "tomorrow"}, "eta is 'tomorrow'; it must be a datetime"),
        ({"expires": []}, "expires is a list; it must be a number of seconds or a datetime"),
        ({"priority": "high"}, "priority is 'high'; it must be a whole number from 0 to 9"),
        ({"priority": 2.5}, "priority is 2.5"),
        ({"priority": -1}, "priority is -1"),
        ({"queue": ""}, "queue is ''; it must be the name of a queue"),
        ({"queue": 7}, "queue is 7"),
        ({"headers": ["a"]}, "headers is a list; it must be a dict"),
        ({"link": "complete"}, "link is 'complete'; it must be a signature"),
        ({"link_error": [1]}, "link_error is a list"),
        ({"time_limit": "9"}, "time_limit is '9'"),
        ({"serializer": "pickle"}, "serializer is 'pickle'; it must be 'json'"),
        ({"compression": "bzip2"}, "compression is 'bzip2'; it must be one of gzip"),
        ({"prioirty": 3}, r"unknown option 'prioirty' \(did you mean 'priority'\?\)"),
        ({"temperature": 0}, "unknown option 'temperature'"),
        ({"deadline": 5}, r"unknown option 'deadline' \(did you mean 'deadline_s'\?\)"),
    ],
)
def test_celerys_options_are_checked(shared: Any, options: dict[str, Any], said: str) -> None:
    """A worker would bury the message, or Celery drop the option."""
    with pytest.raises(InvalidOption, match=said):
        complete.apply_async(("coder", "hi"), **options)
    with pytest.raises(InvalidOption, match=said):
        complete.s("coder", "hi").set(**options)

    assert shared.dbsize() == 0


def test_every_fault_is_named_at_once(shared: Any) -> None:
    """So that one correction is enough."""
    with pytest.raises(InvalidOption) as refused:
        complete.apply_async(("coder", "hi"), schema={}, countdown="5")

    assert len(refused.value.details["faults"]) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 5, "priority": 9, "retry": False},
        {"eta": datetime(2100, 1, 1, tzinfo=UTC), "expires": "2100-01-02T00:00:00+00:00"},
        {"headers": {"a": "b"}, "shadow": "mine", "ignore_result": False, "compression": "gzip"},
        {"stamped_headers": ["tenant"], "tenant": "acme"},
        {"link": complete.si("planner", "hi"), "link_error": [complete.si("planner", "hi")]},
        {"routing_key": "mine", "delivery_mode": 1, "correlation_id": "c"},
        {"countdown": None, "expires": None, "priority": None, "task_id": None},
    ],
)
def test_what_celery_takes_is_taken(shared: Any, options: dict[str, Any]) -> None:
    """Every documented option, stamps too."""
    complete.apply_async(("coder", "hi"), **options)
    complete.s("coder", "hi").set(**options).apply_async()

    assert len(shared.keys("role.coder*")) == 1


def test_canvases_are_still_canvases(shared: Any) -> None:
    """Groups, chains and chords of checked signatures are enqueued as before."""
    first = complete.s("coder", "hi").set(priority=3)

    group(first, first.clone())()
    (first | complete.s("planner")).apply_async(countdown=1)
    chord([first, first], complete.s("planner"))()

    assert shared.llen("role.coder\x06\x163") == 5


SAME = [
    (("coder", "hi"), {}),
    (("coder", "hi"), {"metadata": {"try": 2}, "deadline_s": 60, "stream": True}),
    (("coder", [{"role": "user", "content": "hi"}]), {}),
]
OTHER = [
    (("coder", "bye"), {}),
    (("planner", "hi"), {}),
    (("coder", "hi"), {"system": "be brief"}),
    (("coder", "hi"), {"params": {"temperature": 0}}),
    (("coder", "hi"), {"schema": {"type": "object"}}),
    (("coder", "hi"), {"tools": [{"name": "f", "description": "d", "parameters": {"type": "object"}}]}),
]  # fmt: skip


@pytest.mark.parametrize(("args", "options"), OTHER)
def test_an_id_with_another_prompt_is_refused(
    shared: Any, args: Any, options: dict[str, Any]
) -> None:
    """It would be paid for once, and have the other one's answer."""
    complete.apply_async(("coder", "hi"), task_id="order-7")

    with pytest.raises(InvalidOption, match="task_id 'order-7' was enqueued before with another"):
        complete.apply_async(args, options, task_id="order-7")
    with pytest.raises(InvalidOption, match="task_id 'order-7' was enqueued before"):
        complete.delay_many([("coder", "x"), (*args, options)], task_ids=["new", "order-7"])

    assert shared.llen("role.coder") == 1
    assert not shared.exists("asked:new")


@pytest.mark.parametrize(("args", "options"), SAME)
def test_an_id_with_the_same_prompt_may_be_enqueued_again(
    shared: Any, args: Any, options: dict[str, Any]
) -> None:
    """After an error nobody knows whether the first one has arrived."""
    complete.apply_async(("coder", "hi"), task_id="order-7")

    complete.apply_async(args, options, task_id="order-7")
    complete.delay_many([(*args, options)], task_ids=["order-7"])

    assert shared.llen("role.coder") == 3


def test_ids_that_celery_makes_cost_nothing(shared: Any) -> None:
    """Nothing is kept of them."""
    complete.delay("coder", "hi")
    complete.delay_many([("coder", "hi")])

    assert not shared.keys("asked:*")


def test_it_costs_no_round_trip(shared: Any) -> None:
    """The comparison is a part of the step that enqueues."""
    complete.delay("coder", "hi")
    shared.config_resetstat()

    complete.apply_async(("coder", "hi"), task_id="order-7")

    calls = shared.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 1
    assert 0 < shared.pttl("asked:order-7") <= 30 * 24 * 3600 * 1000


def test_a_change_of_encryption_keys_is_no_other_prompt(
    shared: Any, use: Use, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest under any of the keys is recognised; who has no key learns nothing from it."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    for keys in (old, f"{old},{new}", f"{new},{old}"):
        monkeypatch.setenv("BREAKWATER_ENCRYPTION_KEYS", keys)
        complete.apply_async(("coder", "hi"), task_id="order-7")

    monkeypatch.setenv("BREAKWATER_ENCRYPTION_KEYS", new)
    with pytest.raises(InvalidOption, match="was enqueued before"):
        complete.apply_async(("coder", "bye"), task_id="order-7")

    assert shared.llen("role.coder") == 3


def test_every_option_of_celerys_that_is_checked_has_its_place_named() -> None:
    """Two modules list them: one checks their values, the other finds them among ours."""
    assert {*execution_options.KNOWN, "task_id"} == CELERY_OPTIONS


def test_many_calls_name_the_faulty_one(shared: Any) -> None:
    """An option of Celery's among those of a call."""
    with pytest.raises(BadCalls, match="call 1: unknown option 'countdown'"):
        complete.delay_many([("coder", "a"), ("coder", "b", {"countdown": 5})])


def test_a_producer_stays_light() -> None:
    """Checking needs no SDK, no HTTP stack and no log."""
    code = "import sys, tasks; tasks.complete; print(sorted({'openai','httpx','structlog'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"

"""Messages of stock clients under ids that no worker takes: a dead letter, and an answer."""

import json
from typing import Any

import pytest
import redis

from breakwater.errors import InvalidMessage
from tasks import app
from tasks.delivery import envelope
from tasks.delivery.delivery_store import DeliveryStore
from tests.support.hostile import old, sound

BAD = {
    "too long": ("x" * 256, "its id has 256 characters"),
    "a line break": ("a\nb", "its id cannot be printed"),
    "an escape sequence": ("\x1b[2J", "its id cannot be printed"),
    "empty": ("", "its id has 0 characters"),
}


def refusal(message: dict[str, Any]) -> str:
    """What is said of it, when it is taken or when its body is read."""
    message = json.loads(json.dumps(message))
    body, message["body"] = message["body"], json.dumps(message["body"])
    message["properties"]["body_encoding"] = "utf-8"
    try:
        envelope.check(message)
        envelope.check_task(message["headers"], body)
    except InvalidMessage as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize("write", [sound, old])
@pytest.mark.parametrize("bad", BAD)
def test_the_refusal_names_what_is_wrong_with_the_id(write: Any, bad: str) -> None:
    """In both of Celery's protocols."""
    task_id, said = BAD[bad]

    assert said in refusal(write(task_id))
    assert "1 to 255 printable characters" in refusal(write(task_id))


def test_a_later_stage_of_such_an_id_is_refused_before_the_first_is_paid_for() -> None:
    """A worker could not enqueue it."""
    stage = {"task": "complete", "args": ["coder"], "kwargs": {}, "options": {"task_id": "x" * 300}}
    message = sound("good")
    message["body"][2]["chain"] = [{**stage, "subtask_type": None, "immutable": False}]

    assert "'chain' does not fit" in refusal(message)


@pytest.mark.parametrize("bad", ["too long", "a line break", "an escape sequence"])
def test_its_caller_has_the_refusal_as_result(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """Else it would wait for ever."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    client = redis.Redis.from_url(redis_url)
    task_id, said = BAD[bad]
    client.lpush("celery", b"message")
    store = DeliveryStore(client)
    ((tag, _, _),) = store.take(["celery"], 1, "w.1")

    envelope.dead_letter(store, tag, InvalidMessage(said), envelope.task_id_of(sound(task_id)))

    meta = json.loads(client.get(app.backend.task_keyprefix + task_id.encode()))  # type: ignore[operator]
    assert (meta["status"], meta["task_id"]) == ("FAILURE", task_id)
    assert meta["result"]["exc_message"][0] == said
    ((_, letter),) = client.xrange("dead")  # type: ignore[misc]
    assert letter[b"task_id"].decode() == task_id


@pytest.mark.parametrize("task_id", ["x" * 5000, "a\ud800", 7, None, ["a"]])
def test_an_id_that_can_name_no_key_is_left_out(task_id: Any) -> None:
    """The dead letter has none then."""
    assert envelope.task_id_of({"headers": {"id": task_id}}) == ""

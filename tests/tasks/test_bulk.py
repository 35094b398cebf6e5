"""Many calls in one go: the same messages as one by one, all of them checked first, none lost."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import signals
from cryptography.fernet import Fernet

from breakwater.celery_app import QueueUnavailable
from breakwater.errors import BadCalls, InvalidOption
from breakwater.messaging import outbox
from tasks import complete
from tests.support.fault_proxy import FaultProxy
from tests.support.valkey import Server
from tests.tasks.conftest import Use

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TALK = [
    {"role": "user", "content": [{"type": "text", "text": "wie heißt du?"}]},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "name": "f", "arguments": {}}]},
    {"role": "tool", "tool_call_id": "1", "content": "☃"},
]
AS_ONE = {
    "a prompt": (("coder", "hi"), {}),
    "messages": (("coder", TALK), {}),
    "options": (("coder", "hi", {"schema": SCHEMA, "deadline_s": 5, "metadata": {"a": 1}}), {}),
    "a priority": (("coder", "hi"), {"priority": 7}),
    "headers": (("coder", "hi"), {"headers": {"request": "r-1"}}),
    "a queue": (("coder", "hi"), {"queue": "mine"}),
    "a countdown": (("coder", "hi"), {"countdown": 60}),
    "an expiry": (("coder", "hi"), {"expires": 600}),
    "moments": (
        ("coder", "hi"),
        {"eta": datetime(2100, 1, 1, tzinfo=UTC), "expires": datetime(2100, 1, 2, tzinfo=UTC)},
    ),
    "moments as text": (("coder", "hi"), {"expires": "2100-01-02T00:00:00+00:00"}),
}


def waiting(shared: Any, name: str = "role.coder") -> list[dict[str, Any]]:
    """What lies in a list, the next to be taken first."""
    return [json.loads(each) for each in reversed(shared.lrange(name, 0, -1))]


def without_moments(text: str) -> list[Any]:
    """Return a message's pieces in their order, but for what differs from call to call."""
    message = json.loads(text)
    headers, properties = message["headers"], message["properties"]
    for name in ("eta", "expires"):
        if name in headers:
            headers[name] = len(headers[name])
    headers["breakwater"]["enqueued_ms"] = 0
    properties["delivery_tag"] = len(properties["delivery_tag"])
    if "expiration" in properties:  # in ms, of a moment that comes nearer
        properties["expiration"] = round(int(properties["expiration"]), -6)
    return [message.pop("body"), list(message), *map(list, message["headers"].items()), message]


@pytest.mark.parametrize("kind", AS_ONE)
def test_a_message_is_the_one_that_a_call_alone_makes(kind: str, shared: Any) -> None:
    """Workers, other languages and other programs see no difference."""
    (role, prompt, *options), common = AS_ONE[kind]

    complete.apply_async((role, prompt), *options, task_id="same", **common)
    complete.delay_many([(role, prompt, *options)], task_ids=["same"], **common)

    (key,) = (
        key for key in shared.scan_iter() if not key.startswith(("bell:", "_kombu", "asked:"))
    )
    alone, among = reversed(shared.lrange(key, 0, -1))
    assert without_moments(among) == without_moments(alone)


def test_each_call_goes_to_its_role_and_rings_for_it(shared: Any) -> None:
    """In the order given; a bell holds a ring for each call, and never more than eight."""
    results = complete.delay_many(
        [("coder", f"c{n}") for n in range(20)] + [("planner", f"p{n}") for n in range(3)],
        task_ids=[f"id{n}" for n in range(23)],
    )

    ids = [
        message["headers"]["id"] for message in waiting(shared) + waiting(shared, "role.planner")
    ]
    assert ids == [result.id for result in results] == [f"id{n}" for n in range(23)]
    assert [shared.llen(f"bell:role.{role}") for role in ("coder", "planner")] == [8, 3]


def test_every_fault_is_told_and_nothing_is_queued(shared: Any) -> None:
    """With the call's place; the prompts are not repeated."""
    calls = [
        ("coder", "CANARY"), ("codr", "CANARY"), ("coder", ""), "CANARY", ("coder",),
        ("coder", "CANARY", {"temprature": 1}), ("coder", "CANARY", 5),
    ]  # fmt: skip

    with pytest.raises(BadCalls) as caught:
        complete.delay_many(calls)

    told = [(each["index"], each["error"]) for each in caught.value.details["faults"]]
    assert told == [
        (1, "UnknownRole"), (2, "InvalidPrompt"), (3, "InvalidOption"), (4, "InvalidOption"),
        (5, "InvalidOption"), (6, "InvalidOption"),
    ]  # fmt: skip
    assert str(caught.value).startswith("6 of 7 calls cannot be queued, so none was: call 1: ")
    assert "did you mean 'coder'?" in str(caught.value)
    assert "CANARY" not in str(caught.value.args)
    assert shared.dbsize() == 0


def test_of_very_many_faults_ten_are_told_and_the_rest_counted(shared: Any) -> None:
    """A message of a million lines helps nobody; the details have them all."""
    with pytest.raises(BadCalls, match=r"call 9: .*; and 20 more$") as caught:
        complete.delay_many([("coder", "")] * 30)

    assert len(caught.value.details["faults"]) == 30


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schema": {}}, r"unknown option 'schema': it belongs to each call, \(role, prompt, "),
        ({"prority": 1}, r"unknown option 'prority' \(did you mean 'priority'\?\)"),
        ({"expires": "soon"}, "expires is 'soon'; it must be a number of seconds or a datetime"),
        ({"task_ids": ["a"]}, "there are 1 task_ids for 2 calls; each needs one"),
        ({"task_ids": ["a", "a"]}, "two of the task_ids are the same"),
        ({"task_ids": ["a", 7]}, "task_id is a int; it must be a string of 1 to 255"),
    ],
)
def test_options_for_all_are_checked(given: dict[str, Any], said: str, shared: Any) -> None:
    """Before anything is queued; Celery would drop what it does not know."""
    with pytest.raises(InvalidOption, match=said):
        complete.delay_many([("coder", "a"), ("coder", "b")], **given)

    assert shared.dbsize() == 0


def test_no_calls_are_no_work(shared: Any) -> None:
    """A filter that leaves nothing is no error."""
    assert complete.delay_many(iter(())) == []
    assert shared.keys("role.*") == []


@pytest.mark.parametrize(("number", "size", "trips"), [(1200, 10, 3), (12, 600_000, 6)])
def test_a_round_trip_carries_a_bounded_number_of_messages_and_bytes(
    number: int, size: int, trips: int, shared: Any
) -> None:
    """500 small ones, or about 1 MiB: neither side holds a second copy of all of them."""
    complete.delay("coder", "hi")  # connects
    shared.config_resetstat()

    complete.delay_many([("coder", "x" * size)] * number)

    assert shared.info("commandstats")["cmdstat_evalsha"]["calls"] == trips
    assert shared.llen("role.coder") == number + 1


def test_messages_are_encrypted_as_one_alone_is(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With keys nothing of a prompt is in Redis in the clear."""
    key = Fernet.generate_key().decode()
    monkeypatch.setenv("BREAKWATER_ENCRYPTION_KEYS", key)

    complete.delay_many([("coder", "CANARY", {"system": "CANARY"})])

    (message,) = waiting(shared)
    assert message["properties"]["body_encoding"] == "fernet"
    assert json.loads(Fernet(key).decrypt(message["body"]))[0] == ["coder", "CANARY"]


def test_who_listens_to_celerys_signals_hears_of_each(shared: Any) -> None:
    """Tracing libraries put their headers in there."""

    def stamp(headers: dict[str, Any], **_: Any) -> None:
        headers["seen"] = headers["id"]

    signals.before_task_publish.connect(stamp, weak=False)
    try:
        complete.delay_many([("coder", "a"), ("coder", "b")], task_ids=["1", "2"])
    finally:
        signals.before_task_publish.disconnect(stamp)

    assert [message["headers"]["seen"] for message in waiting(shared)] == ["1", "2"]


def test_a_refusal_half_way_says_what_is_in(use: Use) -> None:
    """A server that is full in the middle: what it took is known, the rest is queued later."""
    calls = [("coder", f"{n} " + "x" * 500_000) for n in range(20)]
    with Server() as server:
        use(server.url)
        server.client.config_set("maxmemory", server.client.info()["used_memory"] + 6_000_000)

        with pytest.raises(QueueUnavailable, match=r"took the first \d+ of 20 tasks") as caught:
            complete.delay_many(calls)
        told, first = caught.value.details, waiting(server.client)
        server.client.config_set("maxmemory", 0)
        done = told["queued"]
        complete.delay_many(calls[done:], task_ids=told["task_ids"][done:])

        ids = [message["headers"]["id"] for message in waiting(server.client)]
    assert 0 < done == len(first) < 20
    assert ids == told["task_ids"]


def test_a_lost_reply_half_way_leaves_a_bounded_doubt(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be in is told, and all of it can be enqueued again under the same ids."""
    monkeypatch.setattr(outbox, "MAX_MESSAGES", 4)
    calls = [("coder", f"hi {n}") for n in range(10)]
    ids = [f"id{n}" for n in range(10)]
    with Server() as server, FaultProxy(server.port) as proxy:
        use(proxy.url)
        complete.delay("coder", "the script is known from here on")
        server.client.flushall()
        proxy.lose_replies(None, "EVALSHA", match=b"id4")

        with pytest.raises(QueueUnavailable, match="4 of 10 tasks, and perhaps 4 more") as caught:
            complete.delay_many(calls, task_ids=ids)
        there = [message["headers"]["id"] for message in waiting(server.client)]

    told = caught.value.details
    assert (told["task_ids"], told["queued"], told["unsure"]) == (ids, 4, 4)
    assert set(there) == set(ids[:8])
    assert there[:4] == ids[:4]


def test_after_a_kill_half_way_all_are_enqueued_again_and_none_is_missing(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same ids, each of which is paid for once."""
    monkeypatch.setattr(outbox, "MAX_MESSAGES", 4)
    calls = [("coder", f"hi {n}") for n in range(10)]
    ids = [f"id{n}" for n in range(10)]
    with Server() as server:
        use(server.url)

        def kill(headers: dict[str, Any], **_: Any) -> None:
            if headers["id"] == "id6":
                server.kill()

        signals.before_task_publish.connect(kill, weak=False)
        try:
            with pytest.raises(QueueUnavailable, match="took the first 4 of 10 tasks") as caught:
                complete.delay_many(calls, task_ids=ids)
        finally:
            signals.before_task_publish.disconnect(kill)
        server.start()
        complete.delay_many(calls, task_ids=caught.value.details["task_ids"])
        there = [message["headers"]["id"] for message in waiting(server.client)]

    assert there[:4] == ids[:4]
    assert there[4:] == ids

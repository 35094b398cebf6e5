"""Where a task is: it runs, it waits and how, or nobody knows its id. Nothing is written for it."""

import json
import sys
from typing import Any

import pytest
import redis

from breakwater.messaging import whereabouts
from breakwater.messaging.names import list_of
from breakwater.messaging.settlement import Settlement
from breakwater.messaging.whereabouts import Whereabouts, as_dict, find
from tasks import app, complete
from tasks.delivery.delivery_store import DeliveryStore
from tests.support.spawner import run


@pytest.fixture
def server(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    monkeypatch.setattr(whereabouts, "role_names", lambda: frozenset({"coder"}))
    return redis.Redis.from_url(redis_url)


def message(task_id: str, text: str = "hi") -> str:
    """As kombu writes it."""
    return json.dumps({"body": text, "headers": {"lang": "py", "id": task_id, "root_id": "other"}})


def queued(server: redis.Redis, *ids: str, queue: str = "role.coder") -> None:
    for each in ids:
        server.lpush(queue, message(each))


def taken(server: redis.Redis, number: int = 1, queue: str = "role.coder") -> list[str]:
    store = DeliveryStore(server)
    return [tag for tag, _, _ in store.take([queue], number, "w0.1")]


def test_an_id_that_nobody_knows(server: redis.Redis) -> None:
    """Also one that is a part of another's, or stands in a prompt, or is another's root."""
    queued(server, "abc-1")
    server.lpush("role.coder", message("x", 'the "id": "t"'))

    for unknown in ("abc", "bc-1", "t", "other", ""):
        assert find(server, unknown) == Whereabouts("unknown")


def test_one_that_waits_knows_how_many_are_before_it(server: redis.Redis) -> None:
    """The oldest is taken first; other queues do not count."""
    queued(server, "a", "b", "c")
    queued(server, "z", queue="celery")

    assert [find(server, each).ahead for each in "abcz"] == [0, 1, 2, 0]
    assert find(server, "c").queue == "role.coder"
    assert find(server, "z").queue == "celery"


def test_it_is_found_behind_many(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page after the other; beyond the most nothing is known."""
    queued(server, *(f"t{n}" for n in range(50)))
    monkeypatch.setattr(whereabouts, "BATCH_SIZE", 7)

    assert [find(server, f"t{n}").ahead for n in (0, 6, 7, 13, 14, 48, 49)] == [
        0,
        6,
        7,
        13,
        14,
        48,
        49,
    ]
    monkeypatch.setattr(whereabouts, "MAX_MESSAGES", 20)
    assert find(server, "t49") == Whereabouts("unknown")


def test_one_in_a_workers_hands_that_has_not_begun_waits(server: redis.Redis) -> None:
    """Until it begins; then it runs; until its worker is lost."""
    queued(server, "a")
    (tag,) = taken(server)
    seen = [find(server, "a")]

    DeliveryStore(server).begin("a", tag, "role.coder")
    seen.append(find(server, "a"))
    server.hdel("taken", tag)
    seen.append(find(server, "a"))

    assert [(each.state, each.how, each.queue) for each in seen] == [
        ("waiting", "taken", "role.coder"), ("running", "", "role.coder"), ("waiting", "queue", ""),
    ]  # fmt: skip


def test_one_that_is_put_aside_knows_until_when(server: redis.Redis) -> None:
    """A countdown, or every provider is down for a while."""
    queued(server, "a")
    (tag,) = taken(server)
    due_ms = 4_000_000_000_000
    DeliveryStore(server).schedule(tag, due_ms)

    assert find(server, "a") == Whereabouts("waiting", "delayed", "role.coder", due_ms=due_ms)


def test_one_whose_role_is_paused_or_parked_says_so(server: redis.Redis) -> None:
    """By whom, why, and until when."""
    queued(server, "a")
    server.hset("paused", "role.coder", json.dumps({"who": "ann", "at_ms": 1, "why": "the bill"}))
    server.hset(
        "parked",
        "role.coder",
        json.dumps({"until_ms": 9, "since_ms": 1, "reason": "all open", "for_ms": 1}),
    )

    told = as_dict(find(server, "a"))

    assert told == {
        "how": "queue", "queue": "role.coder", "ahead": 0,
        "paused": {"who": "ann", "at_ms": 1, "why": "the bill"},
        "parked": {"until_ms": 9, "since_ms": 1, "why": "all open"},
    }  # fmt: skip


def test_one_that_has_a_result_is_settled(server: redis.Redis) -> None:
    """Whatever else is left of it."""
    queued(server, "a")
    server.set("celery-task-meta-a", "{}")

    assert find(server, "a").state == "settled"


STATES = """
import sys
from tasks import app, complete
from tasks.delivery.delivery_store import DeliveryStore, list_of
import redis, os
plain = complete.apply_async(("coder", "hi"))
own = complete.apply_async(("coder", "hi"), priority=9, countdown=600)
many = complete.delay_many([("coder", "a"), ("coder", "b")])
print(plain.state, own.status, *(each.state for each in many), app.AsyncResult("nobody").state)
print(plain.ready(), plain.successful(), plain.failed())
"""


def test_states_are_those_of_the_task(redis_url: str) -> None:
    """WAITING in any queue, by any producer's form; PENDING for ids nobody knows."""
    printed = run(
        [sys.executable, "-c", STATES], env={"REDIS_URL": redis_url, "PATH": ""}, timeout_s=180
    ).stdout

    assert printed.split() == [*["WAITING"] * 4, "PENDING", *["False"] * 3]


def test_a_task_that_runs_is_started(
    server: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has its result's state afterwards."""
    queued(server, "a")
    (tag,) = taken(server)
    store = DeliveryStore(server)
    begun = store.begin("a", tag, "role.coder")
    result: Any = app.AsyncResult("a")
    monkeypatch.setattr(type(result.backend), "client", server)
    states = [result.state]

    meta = json.dumps(
        {"status": "SUCCESS", "result": {}, "task_id": "a", "children": [], "traceback": None}
    )
    store.settle(Settlement("a", meta, fence=begun.fence, tag=tag, expires_s=60))
    states.append(result.state)

    assert states == ["STARTED", "SUCCESS"]
    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)
    assert complete.AsyncResult("a").state == "SUCCESS"


@pytest.mark.parametrize("priority", [0, 3, None, 6, 9])
def test_it_is_found_whatever_its_priority(server: redis.Redis, priority: int | None) -> None:
    """Each has a list of its own."""
    queued(server, "a", "b", queue=list_of("role.coder", priority))

    assert find(server, "b") == Whereabouts("waiting", "queue", "role.coder", ahead=1)

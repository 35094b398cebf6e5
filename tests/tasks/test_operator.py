"""The operator's levers as a page calls them: each changes Redis and writes its journal entry."""

import json

import pytest
import redis

from breaker import Breakers
from breakwater.messaging.journal import Operations
from tasks.operations.fleet import Fleet
from tasks.operations.operator import Operator

QUEUE = "role.coder"
WORKER = {
    "name": "w0@host", "pool": "threads", "concurrency": 8, "version": "aaaaaaaaaaaa",
    "queues": [QUEUE], "running": {},
}  # fmt: skip


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def operator(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setenv("BREAKWATER_WHO", "ann")
    return Operator(server)


def journal(server: redis.Redis) -> list[tuple[str, str, list[str]]]:
    return [(each.who, each.what, each.targets) for each in Operations(server).find()]


def test_a_pause_and_its_end_are_in_the_journal(server: redis.Redis, operator: Operator) -> None:
    """Only a queue whose state changes is returned; the reason is shown with the queue."""
    assert operator.pause([QUEUE], "the bill") == [QUEUE]
    assert operator.pause([QUEUE]) == []
    paused = [each.paused for each in Fleet(server).snapshot(["coder"]).queues if each.role]
    assert operator.resume([QUEUE]) == [QUEUE]

    assert [(hold.who, hold.why) for hold in paused if hold] == [("ann", "the bill")]
    assert journal(server) == [("ann", "resume", [QUEUE]), ("ann", "pause", [QUEUE])]


def test_a_drained_worker_is_in_the_journal(server: redis.Redis, operator: Operator) -> None:
    """A worker that is draining already is not returned again."""
    server.hset("workers", "w0", json.dumps(WORKER))
    workers = Fleet(server).snapshot().workers

    first, second = operator.drain(workers), operator.drain(workers)

    assert (first, second) == (["w0@host"], [])
    assert journal(server) == [("ann", "drain", ["w0@host"])]


@pytest.mark.parametrize(("forced", "entry"), [("open", "breaker open"), (None, "breaker auto")])
def test_a_forced_breaker_is_in_the_journal(
    forced: str | None, entry: str, server: redis.Redis, redis_url: str, operator: Operator
) -> None:
    """None returns the breaker to its own rules."""
    breakers = Breakers.from_url(redis_url)

    state = operator.force_breaker(breakers, "claude", forced)  # type: ignore[arg-type]

    assert (state.forced, journal(server)) == (forced, [("ann", entry, ["claude"])])


def test_a_breaker_of_an_impossible_name_leaves_no_entry(
    server: redis.Redis, redis_url: str, operator: Operator
) -> None:
    """The name is checked before the journal is written."""
    with pytest.raises(ValueError, match="name"):
        operator.force_breaker(Breakers.from_url(redis_url), "{}", "open")

    assert journal(server) == []

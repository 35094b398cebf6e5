"""Messages of tasks that this app does not have: they stay in their queue, and hold up nobody."""

from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from breakwater.errors import ConfigError
from breakwater.redis.connection import client as connect
from tasks import app
from tasks.delivery import foreign_tasks
from tasks.delivery.delivery_store import DeliveryStore
from tests.support.hostile import old, raw, sound


def of(task: str, task_id: str = "t") -> bytes:
    """A message of this task, as Celery writes it."""
    message = sound(task_id)
    message["headers"]["task"] = task
    return raw(message)


class Bench:
    """A server, and workers by the digests of their tasks."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url)
        self.store = DeliveryStore(self.client)
        self.tags: list[str] = []
        self._takes = 0

    def take(self, has: str = "ours", most: int = 8, *queues: str) -> list[bytes]:
        """Take messages; `tags` are theirs."""
        self._takes += 1
        lists, arguments = self.store.take_command(
            queues or ["celery"], most, f"w.{self._takes}", 0, has
        )
        found: Any = self.store.script("take")(keys=lists, args=[arguments])
        self.tags = [found[i].decode() for i in range(0, len(found) - 1, 3)]
        return [found[i + 2] for i in range(0, len(found) - 1, 3)]

    def leave(self, name: str = "shop.add", has: str = "ours", for_ms: int = 30_000) -> None:
        """Leave all that was taken last."""
        for tag in self.tags:
            assert self.store.leave_to_others(tag, has, for_ms, name)

    def leave_all(self, most: int) -> None:
        """Take, and leave, until nothing is taken any more."""
        while self.take(most=most):
            self.leave()

    @property
    def waiting(self) -> list[bytes]:
        """What lies in the common queue, the next first."""
        found: list[bytes] = self.client.lrange("celery", 0, -1)
        return found[::-1]


@pytest.fixture
def bench(redis_url: str) -> Bench:
    """A server with nothing in it."""
    return Bench(redis_url)


def test_a_message_that_is_left_lies_in_its_queue_as_it_was(bench: Bench) -> None:
    """To the byte; nothing else is written about it but that it is passed over."""
    message = of("shop.add")
    bench.client.lpush("celery", message)
    assert bench.take() == [message]

    bench.leave()

    assert bench.waiting == [message]
    assert not bench.client.exists("taken", "begun", "dead", "delayed")
    assert bench.client.hgetall("foreign") == {b"shop.add": b"celery"}


def test_it_is_passed_over_by_workers_with_the_same_tasks(bench: Bench) -> None:
    """And taken by those that have others: such as a newer version, which may have this one."""
    message = of("shop.add")
    bench.client.lpush("celery", message)
    bench.take()
    bench.leave()

    assert [bench.take() for _ in range(5)] == [[]] * 5
    assert bench.waiting == [message]
    assert bench.take("newer") == [message]


def test_after_a_while_it_is_looked_at_again(bench: Bench) -> None:
    """A worker of the same tasks may meet it once in half a minute."""
    bench.client.lpush("celery", of("shop.add"))
    bench.take()
    bench.leave()

    bench.client.zadd("foreign:ours", dict.fromkeys(bench.client.zrange("foreign:ours", 0, -1), 1))

    assert len(bench.take()) == 1


def test_ours_behind_it_are_taken_at_once_and_in_order(bench: Bench) -> None:
    """However many lie in front."""
    theirs = [of("shop.add", f"f{n}") for n in range(20)]
    ours = [of("complete", f"o{n}") for n in range(5)]
    bench.client.lpush("celery", *theirs)
    bench.leave_all(8)
    bench.client.lpush("celery", *ours)

    assert bench.take() == ours
    assert sorted(bench.waiting) == sorted(theirs)


def test_one_step_passes_over_a_bounded_number(bench: Bench) -> None:
    """The next goes on where it has ended."""
    bench.client.lpush("celery", *(of("shop.add", f"f{n}") for n in range(450)))
    bench.leave_all(500)
    bench.client.lpush("celery", of("complete"))

    taken = [len(bench.take()) for _ in range(4)]

    assert sum(taken) == 1
    assert len(bench.waiting) == 450


def test_messages_of_other_queues_are_taken(bench: Bench) -> None:
    """Nobody waits for strangers."""
    bench.client.lpush("celery", of("shop.add"))
    bench.take()
    bench.leave()
    bench.client.lpush("role.coder", b"ours")

    assert bench.take("ours", 8, "celery", "role.coder") == [b"ours"]


def test_one_that_is_gone_is_not_left(bench: Bench) -> None:
    """Another worker has put it back already."""
    assert not bench.store.leave_to_others("no.such:1", "ours", 1000, "shop.add")


@pytest.mark.parametrize(
    "name", ["shop.add", "complete_order", "completed", "Complete", "celery.unheard_of", "☃"]
)
def test_a_task_that_the_app_does_not_have_is_a_stranger(name: str) -> None:
    """Whatever else the message says: it is not ours to check."""
    assert foreign_tasks.foreign_task({"task": name, "id": 7, "eta": []}) == name
    assert foreign_tasks.foreign_task({}, old("x")["body"] | {"task": name}) == name


@pytest.mark.parametrize(
    "headers", [{"task": "complete"}, {"task": "workflow"}, {"task": 7}, {}, None, []]
)
def test_others_are_not(headers: Any) -> None:
    """Ours, and what names no task; that is invalid."""
    app.loader.import_default_modules()

    assert foreign_tasks.foreign_task(headers) == ""


@pytest.mark.parametrize(
    ("body", "ours"),
    [
        ([[], {"task": {"task": "complete"}, "it": []}, {}], True),
        ([[], {"tasks": [{"task": "celery.chain"}, {"task": "complete"}]}, {}], True),
        ([[], {"task": {"task": "shop.add"}, "it": []}, {}], False),
        ([["group-id", {"task": "shop.total"}], {}, {}], False),
        ([[], {}, {}], False),
    ],
)
def test_celerys_own_tasks_are_ours_if_they_run_ours(body: Any, ours: bool) -> None:
    """Another program's chord_unlock and backend_cleanup are not."""
    assert foreign_tasks.names_none_of_ours(body) is not ours


def test_it_is_named_once_in_the_log(bench: Bench) -> None:
    """Not with every message."""
    with capture_logs() as log:
        for name in ("shop.once", "shop.once", "shop.twice"):
            bench.client.lpush("celery", of(name))
            bench.take(name)
            for tag in bench.tags:
                foreign_tasks.leave_in_queue(bench.store, tag, name)

    assert [(each["event"], each["task"]) for each in log] == [
        ("task.not_ours", "shop.once"), ("task.not_ours", "shop.twice"),
    ]  # fmt: skip


@pytest.mark.parametrize("bad", ["role.coder", "with space", "a{b}", ".hidden", "x" * 65, "a/b"])
def test_a_name_that_the_common_queue_cannot_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """By whatever connects."""
    monkeypatch.setenv("BREAKWATER_QUEUE", bad)

    with pytest.raises(ConfigError, match="BREAKWATER_QUEUE must be 1 to 64 letters"):
        connect()

"""The levers in Redis: each is one step, with its record, and is obeyed by the next take."""

import json
import time
from typing import Any

import pytest
import redis

from breakwater.messaging.journal import Operations, journal_entry
from breakwater.messaging.whereabouts import OperatorHold
from tasks.delivery.delivery_store import LEASE_MS, TRIAL_WINDOW_MS
from tasks.delivery.waits import Delay, Park
from tasks.operations.fleet import Fleet, FleetSnapshot

QUEUE, OTHER = "role.coder", "role.planner"
ABOUT = {
    "name": "w0@host", "pool": "thread", "concurrency": 8, "version": "aaaaaaaaaaaa",
    "queues": [QUEUE], "running": {QUEUE: 3},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREAKWATER_WHO", "ann")


class Desk:
    """An operator at the bench."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench

    def pull(self, script: str, *words: str) -> list[str]:
        return [name.decode() for name in self.bench.store.script(script)(args=words)]

    def pause(self, *queues: str, why: str = "") -> list[str]:
        return self.pull("pause", journal_entry("pause"), why, *queues)

    def resume(self, *queues: str) -> list[str]:
        return self.pull("resume", journal_entry("resume"), *queues)

    def look(self) -> FleetSnapshot:
        fleet = Fleet(self.bench.redis)
        fleet._store = self.bench.store  # whose clock the tests move
        return fleet.snapshot()

    def entries(self) -> list[tuple[str, str, list[str], int]]:
        found = Operations(self.bench.redis).find()
        return [(each.who, each.what, each.targets, each.number) for each in found]


@pytest.fixture
def desk(bench: Any) -> Desk:
    return Desk(bench)


def rung(bench: Any, queue: str = QUEUE) -> int:
    return int(bench.redis.llen(f"bell:{queue}"))


def test_nothing_is_taken_from_a_paused_queue_and_the_others_run_on(bench: Any, desk: Desk) -> None:
    """By the very next take, whoever makes it; the order is kept."""
    bench.push("a1", "a2")
    bench.push("b", queue=OTHER)

    assert desk.pause(QUEUE) == [QUEUE]

    assert [message for _, message in bench.take(5)] == ["b"]
    assert bench.waiting() == ["a1", "a2"]


def test_a_resumed_queue_is_taken_from_at_once(bench: Any, desk: Desk) -> None:
    """The workers that wait are woken."""
    bench.push("a")
    desk.pause(QUEUE)
    bench.redis.delete(f"bell:{QUEUE}")

    assert desk.resume(QUEUE) == [QUEUE]

    assert rung(bench) > 0
    assert [message for _, message in bench.take()] == ["a"]


def test_only_an_operator_ends_a_pause(bench: Any, desk: Desk) -> None:
    """A provider that recovers opens a parked queue; it stays paused."""
    bench.push("a")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, wait=Park(10_000, "claude is open"))
    desk.pause(QUEUE)

    assert bench.store.open(QUEUE, "claude is closed")

    assert bench.take() == []


def test_an_operator_ends_no_parking(bench: Any, desk: Desk) -> None:
    """A queue that was paused and resumed waits for its provider as before."""
    bench.push("a")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, wait=Park(10_000, "claude is open"))

    desk.pause(QUEUE)
    desk.resume(QUEUE)

    assert bench.take() == []
    assert bench.parked()["reason"] == "claude is open"


def test_a_paused_queue_spends_none_of_the_few_of_a_parked_one(bench: Any, desk: Desk) -> None:
    """They are let through when they can be taken."""
    bench.push("a")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, wait=Park(1_000, "x", 1))
    desk.pause(QUEUE)
    bench.tick(1_000 + TRIAL_WINDOW_MS)

    assert bench.take() == []

    assert bench.parked()["until_ms"] < bench.ms
    desk.resume(QUEUE)
    assert len(bench.take()) == 1


def test_a_task_in_hand_that_has_not_begun_goes_back_to_its_roles_queue(
    bench: Any, desk: Desk
) -> None:
    """Also one that came by the common queue; it counts as no worker that was lost."""
    bench.push("mine", queue="celery")
    ((tag, _),) = bench.take(queues=("celery",))
    desk.pause(QUEUE)

    begun = bench.store.begin("t", tag, QUEUE)

    assert begun.verdict == "paused"
    assert bench.waiting() == ["mine"]
    assert not bench.redis.exists("taken", "begun", "task:t")


def test_what_runs_is_settled_while_its_queue_is_paused(bench: Any, desk: Desk) -> None:
    """A pause touches nothing that has begun."""
    bench.push("a")
    tag = bench.take_one()
    begun = bench.store.begin("t", tag, QUEUE)

    desk.pause(QUEUE)

    assert bench.settle(begun, tag) == "settled"


def test_a_second_pause_changes_nothing(bench: Any, desk: Desk) -> None:
    """Who was first, when and why stay; and there is no record of what did not happen."""
    desk.pause(QUEUE, why="the bill")
    bench.tick(1_000)

    assert desk.pause(QUEUE, why="another") == []
    assert desk.resume(OTHER) == []

    (queue,) = [each for each in desk.look().queues if each.name == QUEUE]
    assert queue.paused == OperatorHold("ann", bench.ms - 1_000, "the bill")
    assert desk.entries() == [("ann", "pause", [QUEUE], 1)]


def test_a_draining_worker_takes_nothing_and_others_do(bench: Any, desk: Desk) -> None:
    """From the moment the command returns, whether the worker has heard of it or not."""
    bench.push("a")
    bench.store.heartbeat("w1", json.dumps(ABOUT), [QUEUE])

    assert desk.pull("drain", journal_entry("drain"), "w1", "w0@host") == ["w0@host"]

    assert bench.store.take([QUEUE], 1, "w1.7") == []
    assert json.loads(bench.store.heartbeat("w1", json.dumps(ABOUT), [QUEUE]))["who"] == "ann"
    assert len(bench.store.take([QUEUE], 1, "w2.1")) == 1
    assert desk.entries() == [("ann", "drain", ["w0@host"], 1)]


def test_a_worker_that_is_not_there_is_not_drained(bench: Any, desk: Desk) -> None:
    """Nothing is left behind that could meet a worker to come."""
    assert desk.pull("drain", journal_entry("drain"), "w1", "w0@host") == []

    assert not bench.redis.exists("draining", "operations")


def test_a_silent_worker_is_forgotten_with_its_drain(bench: Any, desk: Desk) -> None:
    """By whichever worker speaks next; one that leaves is forgotten at once."""
    for worker in ("w1", "w2", "w3"):
        bench.store.heartbeat(worker, json.dumps(ABOUT), [QUEUE])
    desk.pull("drain", journal_entry("drain"), "w1", "w0@host")

    bench.store.forget_worker("w3")
    bench.tick(LEASE_MS + 1)
    bench.store.heartbeat("w2", json.dumps(ABOUT), [QUEUE])

    assert [worker.id for worker in desk.look().workers] == ["w2"]
    assert not bench.redis.exists("draining")


def test_a_clock_set_back_keeps_no_dead_worker(bench: Any, desk: Desk) -> None:
    """One that is silent is forgotten a lease later, and who drains a living one is not."""
    for worker in ("w1", "w2"):
        bench.store.heartbeat(worker, json.dumps(ABOUT), [QUEUE])
    desk.pull("drain", journal_entry("drain"), "w2", "w2@host")

    bench.tick(-86_400_000)
    for _ in range(2):
        drained_by = bench.store.heartbeat("w2", json.dumps(ABOUT), [QUEUE])
        bench.tick(LEASE_MS // 2 + 1)
    bench.store.heartbeat("w2", json.dumps(ABOUT), [QUEUE])

    assert [worker.id for worker in desk.look().workers] == ["w2"]
    assert drained_by


def test_a_clock_set_forward_forgets_no_living_worker(bench: Any, desk: Desk) -> None:
    """The first to look after the jump does not take the others for dead."""
    for worker in ("w1", "w2"):
        bench.store.heartbeat(worker, json.dumps(ABOUT), [QUEUE])

    bench.tick(3_600_000)
    bench.store.tend([])
    bench.store.heartbeat("w2", json.dumps(ABOUT), [QUEUE])

    assert [worker.id for worker in desk.look().workers] == ["w1", "w2"]


def message(enqueued_ms: int) -> str:
    return json.dumps({"body": "x", "headers": {"breakwater": {"enqueued_ms": enqueued_ms}}})


def test_a_look_tells_what_waits_and_what_runs(bench: Any, desk: Desk) -> None:
    """Over all priorities; the age is that of the next to be taken, from its headers."""
    bench.push(message(bench.ms - 9_000), message(bench.ms - 1_000))
    bench.push(message(bench.ms - 5_000), queue=f"{OTHER}\x06\x163")
    bench.push("from elsewhere", queue="celery")
    bench.store.heartbeat("w1", json.dumps(ABOUT), [QUEUE, OTHER])
    bench.store.heartbeat("w2", json.dumps({**ABOUT, "queues": []}), [])

    seen = {
        each.name: (each.role, each.depth, each.oldest_s, each.running, each.consumers)
        for each in desk.look().queues
    }

    assert seen == {
        "celery": ("", 1, None, 0, 0),
        QUEUE: ("coder", 2, 9.0, 6, 1),
        OTHER: ("planner", 1, 5.0, 0, 0),
    }


def test_what_is_delayed_is_counted_until_it_is_due(bench: Any, desk: Desk) -> None:
    """Whether it had an ETA or waits for a provider."""
    bench.push("a", "b")
    (first, _), (second, _) = bench.take(2)
    bench.store.schedule(first, bench.ms + 5_000, "a")
    bench.wait(bench.begin(second), second, wait=Delay(9_000))

    def delayed() -> list[int]:
        return [each.delayed for each in desk.look().queues if each.name == QUEUE]

    both = delayed()
    bench.tick(5_000)
    bench.take(queues=(OTHER,))
    one = delayed()
    bench.tick(4_000)
    bench.take(queues=(OTHER,))

    assert (both, one, delayed()) == ([2], [1], [0])


def test_a_look_is_cheap_with_a_million_waiting(redis_url: str) -> None:
    """Nothing but the ends of the lists is read."""
    client: Any = redis.Redis.from_url(redis_url)
    client.eval("for i = 1, 1000000 do redis.call('LPUSH', KEYS[1], ARGV[1]) end", 1, QUEUE, "m")
    client.sadd("queues", QUEUE)
    client.config_resetstat()

    view = Fleet(client).snapshot()

    asked = client.info("commandstats")
    assert [each.depth for each in view.queues if each.name == QUEUE] == [1_000_000]
    assert asked["cmdstat_lindex"]["calls"] == 5 * len(view.queues)
    assert "cmdstat_lrange" not in asked


def test_what_a_command_does_to_many_is_one_entry(bench: Any, desk: Desk) -> None:
    """Twenty of them are named, all are counted, and what was done before is still there."""
    desk.pause("role.first")

    desk.resume("role.first")
    desk.pause(*(f"role.{number}" for number in range(25)))

    reply = desk.entries()
    assert [what for _, what, _, _ in reply] == ["pause", "resume", "pause"]
    assert reply[0][2:] == ([f"role.{number}" for number in range(20)], 25)


def test_operations_are_found_by_age(bench: Any) -> None:
    """By Redis' clock; each with what was told of it."""
    Operations(bench.redis).record("reload", ["w0@host", "w1@host"], {"a": 1})

    found = [*Operations(bench.redis).find(since_s=60)]

    assert [(each.what, each.targets, each.details) for each in found] == [
        ("reload", ["w0@host", "w1@host"], {"a": 1})
    ]
    assert abs(time.time() * 1000 - int(found[0].id.split("-")[0])) < 60_000
    assert [*Operations(bench.redis).find(since_s=-3600)] == []


def test_a_parked_queue_is_shown_for_no_longer_than_planned(bench: Any, desk: Desk) -> None:
    """The server's clock stepped back: the next take lets a few through."""
    bench.push("a")
    tag = bench.take_one()
    bench.wait(bench.begin(tag, "t"), tag, "t", wait=Park(30_000, "all open"))
    before = desk.look()

    bench.tick(-3600_000)
    after = desk.look()

    left_ms = [
        queue.parked.until_ms - view.now_ms
        for view in (before, after)
        for queue in view.queues
        if queue.parked
    ]
    assert left_ms == [30_000, 0]
    assert bench.take_one()

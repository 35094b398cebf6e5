"""A worker requeues a message that it cannot run; only an invalid one becomes a dead letter."""

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from celery.exceptions import WorkerShutdown
from celery.worker.consumer import Consumer as CeleryConsumer
from redis.exceptions import ConnectionError as Away

from tasks.delivery import consumer as module
from tasks.delivery.consumer import Consumer
from tasks.delivery.faults import FIRST_REST_S, MAX_FAULTS, MAX_REST_S, FailedMessages, Rest
from tasks.delivery.lease_keeper import DeliveryKeeper
from tests.delivery.conftest import QUEUE, Bench

HOST_FAULTS = [
    RuntimeError("can't start new thread"),
    RuntimeError("cannot schedule new futures after shutdown"),
    MemoryError(),
    OSError(24, "Too many open files"),
    BlockingIOError(11, "Resource temporarily unavailable"),
]
OTHER_FAULTS = [
    AttributeError("'TaskPool' object has no attribute 'grow'"),
    TypeError("__init__() got an unexpected keyword"),
    ValueError("timer"), KeyError("signal"), AssertionError(), ZeroDivisionError(),
    WorkerLostError("pool"), RecursionError(),
]  # fmt: skip


def test_each_rest_is_longer_until_there_was_none_for_a_while() -> None:
    """At most half a minute; a fault during a pause starts no other pause."""
    now = [100.0]
    rest = Rest(lambda: now[0])
    lengths = []
    for _ in range(8):
        rest.begin(MemoryError())
        rest.begin(MemoryError())
        lengths.append(rest._until - now[0])
        now[0] = rest._until
        assert not rest.is_on
    now[0] += 61
    rest.begin(MemoryError())

    assert all(a < b for a, b in pairwise(lengths[:5]))
    assert lengths[-1] <= MAX_REST_S * 1.2
    assert rest._until - now[0] <= FIRST_REST_S * 1.2


def test_a_message_is_odd_only_if_others_pass_meanwhile() -> None:
    """A fault of all messages does not count against one; the number of counters is bounded."""
    odd = FailedMessages()
    alone = [odd.failed("a") for _ in range(9)]
    beside = []
    for _ in range(4):
        odd.passed()
        beside.append(odd.failed("a"))
    for number in range(200):
        odd.failed(str(number))

    assert alone == [1] * 9
    assert beside == [2, 3, 4, 5]
    assert not odd.has_failed("a")
    assert len(odd._faults) == 100


class Worker:
    """Our consumer over a store; the test's handler replaces Celery's."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        self.keeper = DeliveryKeeper(bench.store)
        self.faults: dict[str, BaseException] = {}
        self.handled: list[str] = []
        self.buried: list[str] = []
        monkeypatch.setattr(module, "keeper", lambda: self.keeper)
        monkeypatch.setattr(CeleryConsumer, "create_task_handler", lambda _: self._handle)
        consumer: Any = object.__new__(Consumer)
        consumer._failed_messages = FailedMessages()
        monkeypatch.setattr(consumer, "_check", lambda _: None, raising=False)
        monkeypatch.setattr(consumer, "_foreign_task", lambda _: "", raising=False)
        monkeypatch.setattr(
            consumer, "on_invalid_task", lambda _, m, __: self._bury(m), raising=False
        )
        self.on_message: Callable[[Any], None] = consumer.create_task_handler()

    def _handle(self, message: Any) -> None:
        if fault := self.faults.get(message.headers["id"]):
            raise fault
        self.handled.append(message.headers["id"])

    def _bury(self, message: Any) -> None:
        self.buried.append(message.headers["id"])

    def take(self) -> None:
        """Take all waiting messages, and requeue those that are refused."""
        with self.keeper.receiving():
            for tag, task_id in self.bench.take(8):
                self.keeper.hold(tag, QUEUE)
                qos = SimpleNamespace(refuse=self.keeper.refuse)
                self.on_message(
                    SimpleNamespace(
                        delivery_tag=tag,
                        headers={"id": task_id},
                        properties={},
                        channel=SimpleNamespace(qos=qos),
                        ack=lambda t=tag: self.keeper.acknowledge(t),
                    )
                )
        self.keeper._flush()

    def rested(self) -> None:
        """End the pause."""
        self.keeper.rest = Rest()


@pytest.fixture
def worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker that holds nothing yet."""
    return Worker(bench, monkeypatch)


@pytest.mark.parametrize("fault", [*HOST_FAULTS, *OTHER_FAULTS], ids=repr)
def test_a_fault_gives_back_the_message_and_those_behind_it(
    worker: Worker, fault: Exception
) -> None:
    """They keep their order, however often this happens."""
    worker.bench.push(*"abcd")
    worker.faults = dict.fromkeys("bcd", fault)
    for _ in range(2 * MAX_FAULTS):
        worker.take()
        worker.rested()
        worker.bench.tick(6000)

    assert worker.handled == ["a"]
    assert worker.buried == []
    waiting = {*worker.bench.waiting(), *worker.bench.redis.hvals("delayed:messages")}
    assert len(waiting) == 3
    if type(fault) in {type(each) for each in HOST_FAULTS}:
        assert worker.bench.waiting() == ["b", "c", "d"]


def test_nothing_is_tried_during_a_rest(worker: Worker) -> None:
    """The first fault is enough."""
    worker.bench.push(*"abc")
    worker.faults = {"a": MemoryError()}

    worker.take()

    assert (worker.handled, worker.bench.waiting()) == ([], ["a", "b", "c"])


def test_one_message_that_fails_holds_up_nobody_and_is_buried_at_last(worker: Worker) -> None:
    """Whatever its fault is; the messages behind it run."""
    worker.bench.push("odd")
    worker.faults = {"odd": TypeError()}
    for number in range(2 * MAX_FAULTS):
        worker.bench.push(str(number))
        worker.take()
        worker.rested()
        worker.bench.tick(6000)

    assert worker.buried[:1] == ["odd"]
    assert worker.handled[:3] == ["0", "1", "2"]


@pytest.mark.parametrize("fault", [Away("reset"), ConnectionResetError(), WorkerShutdown(0)])
def test_a_lost_connection_and_a_stop_are_celerys(worker: Worker, fault: BaseException) -> None:
    """Celery reconnects, or ends; the channel requeues what has not begun."""
    worker.bench.push("a")
    worker.faults = {"a": fault}

    with pytest.raises(type(fault)):
        worker.take()

    assert not worker.keeper.rest.is_on

"""A lease assumes that its task is new, until a step needs the history."""

import json

import pytest
from celery.exceptions import Ignore
from redis.exceptions import ResponseError

from breakwater.attempt import Attempt
from tasks.delivery.lease import AlreadySettled, DeliverySuperseded, HasHistory, Lease
from tasks.delivery.waits import Delay
from tests.delivery.conftest import QUEUE, Bench

CALL = '{"provider": "x", "model": "m"}'
ATTEMPT = Attempt("x", "m", "failed")


def lease(bench: Bench) -> Lease:
    """Take the next message, of the task with id t."""
    return Lease(bench.store, "t", bench.take_one(), QUEUE, keep_rows=list)


def put_back(bench: Bench) -> None:
    """Requeue a task that has one attempt."""
    bench.push("a")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, attempts=json.dumps([ATTEMPT.as_dict()]))


def test_a_new_task_begins_once(bench: Bench) -> None:
    """By the first step that needs it, or by its call."""
    bench.push("a")
    held = lease(bench)

    held.ensure_begun()
    fence = held.fence
    held.ensure_begun()
    held.calling(CALL, 1)

    assert held.fence == fence
    assert bench.redis.hget("task:t", "calling") == CALL.encode()


def test_a_task_that_is_not_new_is_started_over(bench: Bench) -> None:
    """HasHistory is raised once; then the lease has the earlier attempts."""
    put_back(bench)
    held = lease(bench)

    with pytest.raises(HasHistory):
        held.ensure_begun()
    held.ensure_begun()

    assert held.attempts == [ATTEMPT]


def test_no_call_goes_out_before_the_history_is_read(bench: Bench) -> None:
    """Nothing was recorded; the next begin loads the history."""
    put_back(bench)
    held = lease(bench)

    with pytest.raises(DeliverySuperseded):
        held.calling(CALL, 1)

    assert not held.has_begun
    assert not bench.redis.hexists("task:t", "calling")


def test_a_task_of_another_delivery_is_not_begun(bench: Bench) -> None:
    """It has a result, or another delivery runs it."""
    bench.push("a", "a", "a")
    first = bench.begin(bench.take_one())

    with pytest.raises(Ignore):
        lease(bench).ensure_begun()
    bench.settle(first)
    with pytest.raises(AlreadySettled):
        lease(bench).ensure_begun()


def test_rows_that_redis_does_not_take_are_handed_to_the_sink(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their attempts are over, and only the lease has them."""
    bench.push("a")
    kept: list[str] = []
    held = Lease(bench.store, "t", bench.take_one(), QUEUE, keep_rows=kept.extend)
    held.rejected("a row", 1)

    def refuse(*_: object, **__: object) -> int:
        raise ResponseError("OOM command not allowed")

    monkeypatch.setattr(bench.store, "requeue", refuse)
    with pytest.raises(ResponseError):
        held.requeue(QUEUE, Delay(1))

    assert kept == ["a row"]

"""A task is taken for new until somebody has to know it."""

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
    """Take the next message's task, id t."""
    return Lease(bench.store, "t", bench.take_one(), QUEUE, keep_rows=list)


def put_back(bench: Bench) -> None:
    """Leave a task that has an attempt behind it."""
    bench.push("a")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, attempts=json.dumps([ATTEMPT.as_dict()]))


def test_a_new_task_is_begun_without_a_word(bench: Bench) -> None:
    """By whoever has to know it, once, or by its call."""
    bench.push("a")
    held = lease(bench)

    held.ensure_begun()
    fence = held.fence
    held.ensure_begun()
    held.calling(CALL, 1)

    assert held.fence == fence
    assert bench.redis.hget("task:t", "calling") == CALL.encode()


def test_a_task_that_is_not_new_is_started_over(bench: Bench) -> None:
    """Told once; then its earlier attempts are there."""
    put_back(bench)
    held = lease(bench)

    with pytest.raises(HasHistory):
        held.ensure_begun()
    held.ensure_begun()

    assert held.attempts == [ATTEMPT]


def test_no_call_goes_out_before_its_task_is_known(bench: Bench) -> None:
    """Nothing was noted; who begins it then learns what there is."""
    put_back(bench)
    held = lease(bench)

    with pytest.raises(DeliverySuperseded):
        held.calling(CALL, 1)

    assert not held.has_begun
    assert not bench.redis.hexists("task:t", "calling")


def test_what_is_not_ours_is_told_when_it_is_to_be_known(bench: Bench) -> None:
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
    """Their attempts are over, and the lease is the last that has them."""
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

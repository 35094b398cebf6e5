"""Redis loses its data, all of it or the newest: what living workers hold still counts, once."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from celery.exceptions import Ignore

from breakwater.attempt import Attempt
from breakwater.messaging.settlement import Settlement
from tasks.delivery.delivery_store import LEASE_MS, Delivery
from tasks.delivery.lease import DeliverySuperseded, Lease
from tasks.delivery.lease_keeper import DeliveryKeeper
from tasks.delivery.waits import Delay, Park
from tests.delivery.conftest import QUEUE, Bench

RESULT = "celery-task-meta-t"
CALL = '{"provider": "x", "model": "m"}'


@dataclass
class Runner:
    """What a thread runs."""

    task_id: str = "t"
    fence: str = ""


def flushed(bench: Bench) -> None:
    """FLUSHALL, or an empty server on the port."""
    bench.redis.flushall()
    bench.tick(0)


def before_the_begin(bench: Bench) -> None:
    """A replica that had the take, and not what came after it."""
    bench.redis.delete("task:t", "begun")


def before_the_take(bench: Bench) -> None:
    """A replica that had the message in its list."""
    bench.redis.delete("task:t", "begun", "taken", "taken:until")
    bench.redis.rpush(QUEUE, "a")


def before_this_delivery(bench: Bench) -> None:
    """A replica that had an earlier delivery of the task, which was put back since."""
    bench.redis.delete("begun", "taken", "taken:until")
    bench.redis.hset("task:t", mapping={"fence": "1", "tag": "w0:1"})


LOSSES = [flushed, before_the_begin, before_the_take, before_this_delivery]
Loss = Callable[[Bench], None]


def delivery(tag: str, fence: str = "", *, has_begun: bool = True) -> Delivery:
    return Delivery(tag, "t", fence, has_begun, QUEUE, b"a")


def taken(bench: Bench) -> str:
    bench.push("a")
    return bench.take_one()


@pytest.fixture
def keeper(bench: Bench) -> DeliveryKeeper:
    """The keeper of a worker; its thread does not run."""
    return DeliveryKeeper(bench.store)


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("more", [{}, {"dead": {"error": "InvalidRequest"}}])
def test_an_answer_counts_though_its_beginning_was_lost(
    bench: Bench, lose: Loss, more: dict[str, Any]
) -> None:
    """It was paid for and nobody else has begun; a failure is a result as well."""
    tag = taken(bench)
    begun = bench.begin(tag)
    bench.store.call("t", begun.fence, call=CALL, number=1, numbered=1)
    lose(bench)

    assert bench.settle(begun, tag, rows=["c" + CALL], **more) == "settled"
    assert bench.settle(begun, tag) == "settled"  # a reply that was lost
    assert bench.settle(begun, meta='"other"') == "already"
    assert bench.redis.xlen("ledger") == 1
    assert not bench.redis.exists("task:t")


@pytest.mark.parametrize("lose", LOSSES)
def test_a_task_goes_on_calling_though_its_beginning_was_lost(bench: Bench, lose: Loss) -> None:
    """The next target of the chain; and what is noted of it does not stay for ever."""
    begun = bench.begin(taken(bench))
    lose(bench)

    assert bench.store.call("t", begun.fence, call=CALL, number=1, numbered=1) == 0
    assert bench.store.call("t", begun.fence, number=1, numbered=1, failed='{"n": 1}') == 0
    assert bench.redis.hget("task:t", "failed") == b'{"n": 1}'
    assert bench.redis.pttl("task:t") > 0


@pytest.mark.parametrize("lose", LOSSES)
def test_who_has_begun_after_a_loss_is_not_overruled(bench: Bench, lose: Loss) -> None:
    """Both beginnings would have the number 1, were they counted."""
    old = bench.begin(taken(bench))
    lose(bench)
    bench.tick(1)
    bench.redis.delete(QUEUE)
    tag = taken(bench)
    new = bench.begin(tag)

    assert bench.store.call("t", old.fence, call=CALL, number=1, numbered=1) == -1
    assert bench.settle(old, meta='"late"') == "superseded"
    assert bench.wait(old, "w1:1") == 0
    assert bench.store.restore([delivery("w1:1", old.fence)]) == set()
    assert bench.settle(new, tag) == "settled"


def test_a_loss_does_not_undo_a_cancellation(bench: Bench) -> None:
    """The result is there, so nothing is restored, called or put back."""
    tag = taken(bench)
    begun = bench.begin(tag)
    flushed(bench)
    bench.store.settle(Settlement("t", '"revoked"', 60))

    assert bench.store.restore([delivery(tag, begun.fence)]) == set()
    assert bench.store.call("t", begun.fence, call=CALL, number=1, numbered=1) == -1
    assert bench.wait(begun, tag) == 0
    assert bench.settle(begun, tag) == "already"


@pytest.mark.parametrize("lose", LOSSES)
def test_a_lost_message_is_taken_again_by_who_runs_it(
    bench: Bench, keeper: DeliveryKeeper, lose: Loss
) -> None:
    """Its call is not cut; and if its worker dies then, the message goes back to its list."""
    cut: list[int] = []
    keeper._abort = lambda thread: bool(cut.append(thread))
    tag = taken(bench)
    keeper.hold(tag, QUEUE, QUEUE, b"a", "t")
    keeper._tend()
    keeper.task_started(tag, Runner(fence=bench.begin(tag).fence))
    lose(bench)
    keeper._was_away = True

    keeper._tend()
    bench.redis.delete(QUEUE)

    assert (cut, keeper.count) == ([], 1)
    assert bench.redis.hget("taken", tag) == b"role.coder\na"
    assert bench.redis.hget("begun", tag) == b"t"
    bench.rest()
    bench.pass_tended(LEASE_MS + 2000)
    assert bench.waiting() == ["a"]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_all_that_a_worker_holds_is_restored(
    bench: Bench, keeper: DeliveryKeeper, pool: str
) -> None:
    """Also what has not begun, and what a child runs, of which the parent knows no fence."""
    bench.push("a", "b")
    running, waiting = (tag for tag, _ in bench.take(2))
    keeper._tend()
    for tag, message in (running, b"a"), (waiting, b"b"):
        keeper.hold(tag, QUEUE, QUEUE, message, message.decode())
    begun = bench.begin(running, "a")
    keeper.accepted(running)
    if pool == "threads":
        keeper.task_started(running, Runner("a", begun.fence))
    flushed(bench)

    keeper._tend()

    assert bench.redis.hgetall("taken") == {
        running.encode(): b"role.coder\na",
        waiting.encode(): b"role.coder\nb",
    }
    assert bench.redis.hgetall("begun") == {running.encode(): b"a"}
    assert int(bench.redis.hget("delivery", "restored")) == 2
    assert bench.begin(waiting, "b").verdict == "run"
    assert bench.settle(begun, running, "a") == "settled"
    bench.store.acknowledge([running])
    assert bench.waiting() == []


@pytest.mark.parametrize("ends", ["waits", "settles", "is put back", "is cancelled"])
def test_what_has_left_a_worker_by_its_own_doing_is_not_restored(
    bench: Bench, keeper: DeliveryKeeper, ends: str
) -> None:
    """The keeper looks between that and the acknowledgement."""
    tag = taken(bench)
    keeper.hold(tag, QUEUE, QUEUE, b"a", "t")
    keeper._tend()
    begun = bench.begin(tag)
    keeper.task_started(tag, Runner(fence=begun.fence))
    match ends:
        case "waits":
            bench.wait(begun, tag, wait=Delay(5000))
        case "settles":
            bench.settle(begun, tag)
            bench.store.acknowledge([tag])
        case "is put back":
            bench.store.return_all([tag])
        case _:
            bench.store.settle(Settlement("t", '"revoked"', 60))
    before = bench.waiting(), bench.redis.zcard("delayed"), bench.redis.hlen("taken")

    keeper._tend()

    assert (bench.waiting(), bench.redis.zcard("delayed"), bench.redis.hlen("taken")) == before
    assert keeper.count == 0


def test_a_worker_that_slept_keeps_its_call_while_nobody_else_has_begun(
    bench: Bench, keeper: DeliveryKeeper
) -> None:
    """Its message went back to the list; whoever takes it from there finds an owner."""
    tag = taken(bench)
    keeper.hold(tag, QUEUE, QUEUE, b"a", "t")
    keeper.task_started(tag, Runner(fence=bench.begin(tag).fence))
    bench.pass_tended(LEASE_MS + 2000)

    keeper._tend()

    assert keeper.count == 1
    assert bench.begin(bench.take_one()).verdict == "owned"


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("wait", [Delay(), Delay(5000), Park(5000)])
def test_a_task_that_has_to_wait_takes_its_lost_message_along(
    bench: Bench, keeper: DeliveryKeeper, lose: Loss, wait: Delay | Park
) -> None:
    """Or else it would wait nowhere, and its caller for ever."""
    tag = taken(bench)
    keeper.hold(tag, QUEUE, QUEUE, b"a", "t")
    lease = Lease(bench.store, "t", tag, QUEUE, keeper, keep_rows=list)
    keeper.task_started(tag, lease)
    lease.ensure_begun()
    attempt = Attempt("x", "m", "failed")
    lease.attempts = [attempt]
    lose(bench)
    bench.redis.delete(QUEUE)

    lease.requeue(QUEUE, wait)

    assert len(bench.waiting()) + bench.redis.zcard("delayed") == 1
    assert bench.redis.hget("task:t", "attempts") == json.dumps([attempt.as_dict()]).encode()


@pytest.mark.parametrize("begins", ["with its call", "by itself"])
def test_a_task_begins_though_its_message_was_lost(
    bench: Bench, keeper: DeliveryKeeper, begins: str
) -> None:
    """It was taken, and Redis lost the take, and the message too."""
    tag = taken(bench)
    keeper.hold(tag, QUEUE, QUEUE, b"a", "t")
    lease = Lease(bench.store, "t", tag, QUEUE, keeper, keep_rows=list)
    keeper.task_started(tag, lease)
    flushed(bench)

    if begins == "by itself":
        lease.begin()
    else:
        lease.calling(CALL, 1)

    assert lease.has_begun
    assert bench.redis.hget("taken", tag) == b"role.coder\na"


def test_a_share_is_asked_again_with_the_message_restored(
    bench: Bench, keeper: DeliveryKeeper
) -> None:
    """It makes the call, and those that ask afterwards wait for it."""
    tag = taken(bench)
    keeper.hold(tag, QUEUE, QUEUE, b"a", "t")
    lease = Lease(bench.store, "t", tag, QUEUE, keeper, keep_rows=list)
    keeper.task_started(tag, lease)
    lease.ensure_begun()
    flushed(bench)

    assert lease.share("d" * 64, 60_000, 60) is None
    assert lease.keep_s == 60


@pytest.mark.parametrize("known", [True, False])
def test_what_a_lost_connection_gave_back_is_not_begun_twice(
    bench: Bench, keeper: DeliveryKeeper, known: bool
) -> None:
    """The pool still has it. If Redis has lost the message since, it is begun here after all."""
    tag = taken(bench)
    keeper._tend()
    keeper.hold(tag, QUEUE, QUEUE, b"a", "t")
    lease = Lease(bench.store, "t", tag, QUEUE, keeper, keep_rows=list)
    keeper.return_unstarted(tag)
    if not known:
        flushed(bench)
    keeper._flush()

    if known:
        with pytest.raises(Ignore):
            lease.begin()
        assert bench.waiting() == ["a"]
    else:
        lease.begin()
        assert (lease.has_begun, bench.waiting()) == (True, [])


def test_a_worker_that_stops_gives_back_what_redis_has_lost(
    bench: Bench, keeper: DeliveryKeeper
) -> None:
    """Nobody else has it."""
    tag = taken(bench)
    keeper._tend()
    keeper.hold(tag, QUEUE, QUEUE, b"a", "t")
    keeper.task_started(tag, Runner(fence=bench.begin(tag).fence))
    flushed(bench)

    keeper.stop()

    assert bench.waiting() == ["a"]


def test_a_stream_goes_on_though_its_task_was_lost(bench: Bench) -> None:
    """Until somebody else has begun; then it is not heard."""
    begun = bench.begin(taken(bench))
    script = bench.store.script("stream")
    keys = ["task:t", "stream:t", RESULT]
    flushed(bench)

    assert script(keys=keys, args=[begun.fence, 2, 60_000, "text", "{}"]) == 1
    assert bench.redis.pttl("task:t") > 0
    bench.tick(1)
    bench.begin(taken(bench))
    assert script(keys=keys, args=[begun.fence, 3, 60_000, "text", "{}"]) == 0


def test_a_child_waits_for_its_parent_to_restore_the_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has the task, and its parent the message; who does not come is not waited for."""
    monkeypatch.setattr("tasks.delivery.lease.PARENT_RESTORE_S", 0.1)
    tag = taken(bench)
    child = DeliveryKeeper(bench.store)
    lease = Lease(bench.store, "t", tag, QUEUE, child, keep_rows=list)
    lease.ensure_begun()
    flushed(bench)

    restored = delivery(tag, has_begun=True)
    monkeypatch.setattr(
        "tasks.delivery.lease.time.sleep", lambda _: bench.store.restore([restored])
    )
    lease.requeue(QUEUE, Delay())

    assert bench.waiting() == ["a"]
    with pytest.raises(DeliverySuperseded):
        Lease(bench.store, "u", "other.1:1", QUEUE, child, keep_rows=list).calling(CALL, 1)

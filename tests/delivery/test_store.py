"""Each step of the delivery by itself: what it promises, and what if it happens twice or too late."""

import json

import pytest

from breakwater.messaging.names import PRIORITY_MARK, list_of
from breakwater.messaging.settlement import Settlement
from tasks.delivery.delivery_store import LEASE_MS, MAX_MESSAGE_BYTES, TRIAL_WINDOW_MS
from tasks.delivery.waits import Delay, Park
from tests.delivery.conftest import OTHER, QUEUE, Bench


def test_what_is_taken_is_in_one_place_at_every_moment(bench: Bench) -> None:
    """In the list, or in `taken` with a time limit: never in neither, never in both."""
    bench.push("a", "b")

    tag = bench.take_one()

    assert bench.waiting() == ["b"]
    assert bench.redis.hget("taken", tag) == b"role.coder\na"
    assert bench.redis.zscore("taken:until", tag) == bench.ms + LEASE_MS


def test_queues_take_turns_and_priorities_go_first(bench: Bench) -> None:
    """A long queue does not hold up another; an urgent message overtakes."""
    bench.push("a", "b", "c")
    bench.push("x", queue=OTHER)
    bench.push("late", queue=f"{QUEUE}{PRIORITY_MARK}9")

    taken = [message for _, message in bench.take(10)]

    assert taken == ["a", "x", "b", "c", "late"]


def test_a_message_that_is_too_large_is_a_dead_letter(bench: Bench) -> None:
    """No worker loads it, and those behind it are taken."""
    bench.push("x" * (MAX_MESSAGE_BYTES + 1), "b")

    taken = bench.take(2)

    assert [message for _, message in taken] == ["b"]
    ((_, letter),) = bench.redis.xrange("dead")
    assert letter[b"error"] == b"MessageTooLarge"
    assert bench.redis.hlen("dead:messages") == 1


def test_a_silent_worker_loses_what_it_holds(bench: Bench) -> None:
    """It goes back to the head of its list within a lease and a look."""
    bench.push("a", "b")
    tag = bench.take_one()

    bench.pass_tended(LEASE_MS - 1)
    before = bench.waiting()
    bench.pass_tended(2000)

    assert before == ["b"]
    assert bench.waiting() == ["a", "b"]
    assert not bench.redis.hexists("taken", tag)
    assert bench.counted("recovered") == 1


def test_a_living_worker_keeps_what_it_holds_for_any_time(bench: Bench) -> None:
    """One command renews all of it."""
    bench.push("a", "b")
    tags = [tag for tag, _ in bench.take(2)]

    lost = bench.pass_tended(20 * LEASE_MS, *tags).lost

    assert lost == []
    assert bench.waiting() == []


def test_a_worker_is_told_what_it_has_lost(bench: Bench) -> None:
    """It slept, or the network did."""
    bench.push("a")
    tag = bench.take_one()
    bench.pass_tended(LEASE_MS + 2000)

    lost = bench.store.tend([tag]).lost

    assert lost == [tag]
    assert bench.redis.zscore("taken:until", tag) is None


def test_after_an_outage_the_living_come_first(bench: Bench) -> None:
    """Redis was away longer than a lease: nobody is taken for dead before having had a chance."""
    bench.push("a", "b")
    alive, dead = (tag for tag, _ in bench.take(2))

    bench.tick(10 * LEASE_MS)
    bench.store.tend([])  # somebody else is the first to be back
    bench.tick(2000)
    lost = bench.store.tend([alive]).lost
    bench.pass_tended(LEASE_MS, alive)

    assert lost == []
    assert bench.waiting() == ["b"]
    assert not bench.redis.hexists("taken", dead)


def test_a_clock_that_steps_back_keeps_nothing_for_longer_than_two_leases(bench: Bench) -> None:
    """A failover to a server whose clock is behind."""
    bench.push("a")
    bench.take_one()
    bench.tick(-3600_000)

    bench.pass_tended(2 * LEASE_MS + 4000)

    assert bench.waiting() == ["a"]


def test_a_task_has_one_runner(bench: Bench) -> None:
    """The same id queued twice: the second delivery is dropped while the first runs."""
    bench.push("a", "a")
    first, second = (tag for tag, _ in bench.take(2))

    begun, again = bench.begin(first), bench.begin(second)

    assert (begun.verdict, again.verdict) == ("run", "owned")
    assert not bench.redis.hexists("taken", second)


def test_a_begin_whose_answer_was_lost_can_be_asked_again(bench: Bench) -> None:
    """It is no lost worker; the newest fence counts."""
    bench.push("a")
    tag = bench.take_one()

    first, second = bench.begin(tag), bench.begin(tag)

    assert int(second.fence) > int(first.fence)
    assert "lost" not in second.task
    assert bench.settle(second) == "settled"


def test_a_message_that_went_back_cannot_be_begun(bench: Bench) -> None:
    """A worker that wakes up late finds it is not its own any more."""
    bench.push("a")
    tag = bench.take_one()
    bench.pass_tended(LEASE_MS + 2000)

    assert bench.begin(tag).verdict == "gone"


def test_only_the_newest_fence_calls_and_settles(bench: Bench) -> None:
    """A worker that slept through its lease neither pays nor overwrites."""
    bench.push("a")
    slept = bench.take_one()
    old = bench.begin(slept)
    bench.pass_tended(LEASE_MS + 2000)
    tag = bench.take_one()
    new = bench.begin(tag)

    assert bench.store.call("t", old.fence, call='{"provider": "x"}', number=1, numbered=1) == -1
    assert bench.settle(old, meta='"late"') == "superseded"
    assert bench.store.call("t", new.fence, call='{"provider": "x"}', number=1, numbered=1) == 0
    assert bench.settle(new) == "settled"
    assert bench.settle(old, meta='"late"') == "already"
    assert bench.redis.get("celery-task-meta-t") == b'"answer"'
    assert bench.counted("superseded") == 2


def test_a_late_answer_counts_while_nobody_else_has_begun(bench: Bench) -> None:
    """It was paid for; the message that went back finds the result."""
    bench.push("a")
    slept = bench.take_one()
    begun = bench.begin(slept)
    bench.pass_tended(LEASE_MS + 2000)

    reply = bench.settle(begun)

    assert reply == "settled"
    assert bench.begin(bench.take_one()).verdict == "settled"


def test_a_settlement_whose_answer_was_lost_is_repeated_as_the_same(bench: Bench) -> None:
    """The same result a second time is ours; another one is not."""
    bench.push("a")
    tag = bench.take_one()
    begun = bench.begin(tag)

    assert [bench.settle(begun), bench.settle(begun)] == ["settled", "settled"]
    assert bench.settle(begun, meta='"other"') == "already"


def test_a_call_whose_worker_was_lost_is_counted_when_another_goes_out(bench: Bench) -> None:
    """Not before: it may never be needed again. And never twice."""
    bench.push("a")
    begun = bench.begin(bench.take_one())
    bench.store.call("t", begun.fence, call='{"provider": "x", "model": "m"}', number=1, numbered=1)
    bench.pass_tended(LEASE_MS + 2000)

    again = bench.begin(bench.take_one())
    before = bench.counted("duplicates")
    counts = [
        bench.store.call("t", again.fence, call='{"provider": "x"}', number=1, numbered=1)
        for _ in range(2)
    ]

    assert again.task["lost"] == "1"
    assert again.task["lost_calls"] == '{"provider": "x", "model": "m"}'
    assert (before, counts, bench.counted("duplicates")) == (0, [1, 1], 1)


def test_a_new_task_begins_with_its_call(bench: Bench) -> None:
    """One step for both; a worker that is lost then has lost a call."""
    bench.push("a")
    tag = bench.take_one()

    begun = bench.store.begin("t", tag, call='{"provider": "x"}', numbered=1)
    bench.pass_tended(LEASE_MS + 2000)
    again = bench.begin(bench.take_one())

    assert (begun.verdict, begun.task["numbered"]) == ("run", "1")
    assert again.task["lost_calls"] == '{"provider": "x"}'
    assert again.task["unknown"] == "1"


@pytest.mark.parametrize("before", ["waited", "lost", "owned", "asked before"])
def test_a_call_does_not_go_out_before_what_there_is_to_know_is_read(
    bench: Bench, before: str
) -> None:
    """It may have an attempt behind it, or another owner; nothing is written then."""
    bench.push("a", "a")
    tag = bench.take_one()
    begun = bench.begin(tag)
    if before == "waited":
        bench.wait(begun, tag, attempts="[]")
    if before == "lost":
        bench.pass_tended(LEASE_MS + 2000)
    if before != "asked before":
        tag = bench.take_one()
    task = bench.redis.hgetall("task:t")

    assert bench.store.begin("t", tag, call="{}", numbered=1).verdict == "has_history"
    assert bench.redis.hgetall("task:t") == task


def test_who_asks_again_has_not_called_yet(bench: Bench) -> None:
    """The reply to a beginning with a call was lost: that call did not go out."""
    bench.push("a")
    tag = bench.take_one()
    bench.store.begin("t", tag, call='{"provider": "x"}', numbered=1)

    begun = bench.begin(tag)
    bench.settle(begun)

    assert not [field for field in begun.task if field.startswith("calling")]
    assert bench.redis.xlen("ledger") == 0


def test_a_call_that_has_failed_is_not_one_that_may_have_been_paid(bench: Bench) -> None:
    """Killed between two targets: there is nothing to count."""
    bench.push("a")
    begun = bench.begin(bench.take_one())
    bench.store.call("t", begun.fence, call='{"provider": "x"}', number=1, numbered=1)
    bench.store.call("t", begun.fence, number=1, numbered=1)
    bench.pass_tended(LEASE_MS + 2000)

    again = bench.begin(bench.take_one())

    assert bench.store.call("t", again.fence, call='{"provider": "y"}', number=1, numbered=1) == 0


def test_a_call_that_has_failed_is_remembered_once(bench: Bench) -> None:
    """Whoever runs the task after a kill knows of it; a reply that was lost does not double it."""
    bench.push("a")
    begun = bench.begin(bench.take_one())
    for number in (1, 2):
        bench.store.call("t", begun.fence, call='{"provider": "x"}', number=number, numbered=number)
        for _ in range(2):
            bench.store.call(
                "t", begun.fence, number=number, numbered=number, failed=f'{{"n": {number}}}'
            )
    bench.pass_tended(LEASE_MS + 2000)

    again = bench.begin(bench.take_one())

    assert again.task["failed"] == '{"n": 1}\n{"n": 2}'
    assert "lost_calls" not in again.task


def test_a_task_that_waits_keeps_what_it_has_come_to(bench: Bench) -> None:
    """The message stays as it was; the attempts are beside it."""
    bench.push("a", "b")
    tag = bench.take_one()
    begun = bench.begin(tag)

    bench.wait(begun, tag, attempts='[{"provider": "x"}]', repeats=2)
    again = bench.begin(bench.take_one())

    assert bench.waiting() == ["b"]
    assert json.loads(again.task["attempts"]) == [{"provider": "x"}]
    assert again.task["repeats"] == "2"
    assert "lost" not in again.task


def test_a_delayed_task_comes_back_when_it_is_due(bench: Bench) -> None:
    """Meanwhile it is in Redis, in nobody's memory."""
    bench.push("a")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, wait=Delay(5000))

    bench.tick(4999)
    early = bench.take()
    bench.tick(1)

    assert early == []
    assert [message for _, message in bench.take()] == ["a"]
    assert not bench.redis.exists("delayed", "delayed:messages")


def test_a_wait_that_is_repeated_puts_one_message_back(bench: Bench) -> None:
    """Its answer was lost on the way."""
    bench.push("a")
    tag = bench.take_one()
    begun = bench.begin(tag)

    assert [bench.wait(begun, tag), bench.wait(begun, tag)] == [1, 1]
    assert bench.waiting() == ["a"]


def test_a_wait_of_one_who_was_superseded_changes_nothing(bench: Bench) -> None:
    """Its message belongs to another."""
    bench.push("a")
    slept = bench.take_one()
    old = bench.begin(slept)
    bench.pass_tended(LEASE_MS + 2000)
    bench.begin(bench.take_one())

    assert bench.wait(old, slept, attempts='["mine"]') == 0
    assert bench.waiting() == []


def test_a_parked_queue_is_left_alone_and_others_are_not(bench: Bench) -> None:
    """What was in flight is at its head, in order."""
    bench.push("a", "b")
    bench.push("x", queue=OTHER)
    tag = bench.take_one()
    reply = bench.wait(bench.begin(tag), tag, wait=Park(10_000, "x is open", 2))

    taken = bench.take(5)

    assert reply == 2
    assert [message for _, message in taken] == ["x"]
    assert bench.waiting() == ["a", "b"]
    assert bench.parked()["reason"] == "x is open"


def test_at_reopening_a_few_go_first(bench: Bench) -> None:
    """If they tell nothing, a few more later; a flood never."""
    bench.push(*"abcdefg")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, wait=Park(10_000, "", 2))
    bench.tick(10_000)

    first = [message for _, message in bench.take(5)]
    then = bench.take(5)
    bench.tick(TRIAL_WINDOW_MS)
    later = [message for _, message in bench.take(5)]

    assert (first, then, later) == (["a", "b"], [], ["c", "d"])


def test_a_clock_that_steps_back_parks_no_queue_for_longer(bench: Bench) -> None:
    """A failover to a server whose clock is an hour behind."""
    bench.push("a")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, wait=Park(10_000, "", 2))

    bench.tick(-3600_000)

    assert [message for _, message in bench.take(5)] == ["a"]


def test_an_answer_opens_a_parked_queue(bench: Bench) -> None:
    """All of it, and its end is told."""
    bench.push(*"abcd")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, wait=Park(10_000, "", 1))
    bench.tick(10_000)
    tag = bench.take_one()

    reply = bench.settle(bench.begin(tag), tag, opens=QUEUE)

    assert reply == "opened"
    assert len(bench.take(5)) == 3
    events = [event[b"to"] for _, event in bench.redis.xrange("parked:events")]
    assert events == [b"parked", b"open"]


def test_a_queue_is_opened_once(bench: Bench) -> None:
    """Every worker may hear of it."""
    bench.push("a")
    tag = bench.take_one()
    bench.wait(bench.begin(tag), tag, wait=Park(10_000, "", 1))

    assert [bench.store.open(QUEUE, "x is closed"), bench.store.open(QUEUE, "")] == [True, False]
    assert len(bench.take()) == 1


def test_what_a_stopping_worker_gives_back_is_in_order_and_counts_no_loss(bench: Bench) -> None:
    """A call that was out may have been paid."""
    bench.push(*"abc")
    tags = [tag for tag, _ in bench.take(3)]
    begun = bench.begin(tags[0])
    bench.store.call("t", begun.fence, call='{"provider": "x"}', number=1, numbered=1)

    bench.store.return_all(reversed(tags))

    assert bench.waiting() == ["a", "b", "c"]
    again = bench.begin(bench.take_one())
    assert "lost" not in again.task
    assert again.task["unknown"] == "1"


def test_a_lost_connection_gives_back_only_what_has_not_begun(bench: Bench) -> None:
    """What runs goes on, and is renewed."""
    bench.push("a", "b")
    running, waiting = (tag for tag, _ in bench.take(2))
    bench.begin(running)

    bench.store.return_unstarted([waiting, running])

    assert bench.waiting() == ["b"]
    assert bench.redis.hexists("taken", running)


def test_an_acknowledgement_of_what_is_not_settled_gives_it_back(bench: Bench) -> None:
    """Whatever made Celery drop it, nothing is lost."""
    bench.push("a")
    tag = bench.take_one()
    bench.begin(tag)

    bench.store.acknowledge([tag])

    assert bench.waiting() == ["a"]
    assert bench.begin(bench.take_one()).task["lost"] == "1"


def test_an_acknowledgement_of_what_is_settled_forgets_it(bench: Bench) -> None:
    """Nothing of a finished task is left but its result."""
    bench.push("a")
    tag = bench.take_one()
    bench.settle(bench.begin(tag), tag)

    bench.store.acknowledge([tag])

    assert bench.waiting() == []
    assert not bench.redis.exists("taken", "taken:until", "begun", "task:t")


def test_a_cancelled_task_is_its_workers_no_more(bench: Bench) -> None:
    """The cancellation is the result; the worker hears of it at its next look."""
    bench.push("a")
    tag = bench.take_one()
    begun = bench.begin(tag)

    reply = bench.store.settle(Settlement("t", '"revoked"', expires_s=60))

    assert reply == "settled"
    assert bench.store.tend([tag])[0] == [tag]
    assert bench.settle(begun) == "already"
    assert bench.store.call("t", begun.fence, call='{"provider": "x"}', number=1, numbered=1) == -1


def test_a_failure_is_kept_with_its_message(bench: Bench) -> None:
    """The result and the dead letter are one step."""
    bench.push("a")
    tag = bench.take_one()

    bench.settle(bench.begin(tag), tag, dead={"role": "coder", "error": "InvalidRequest"})

    ((letter, fields),) = bench.redis.xrange("dead")
    assert (fields[b"task_id"], fields[b"error"]) == (b"t", b"InvalidRequest")
    assert bench.redis.hget("dead:messages", letter) == b"role.coder\na"


@pytest.mark.parametrize("back_ms", [3_000, 3600_000, 30 * 86_400_000])
def test_a_clock_that_steps_back_delays_nothing_for_longer(bench: Bench, back_ms: int) -> None:
    """Neither a task that waits for a provider, nor a message that has a countdown."""
    bench.push("waits", "counts down")
    (waits, _), (counts_down, _) = bench.take(2)
    bench.wait(bench.begin(waits), waits, wait=Delay(2_000))
    bench.store.schedule(counts_down, bench.ms + 3_000, "counted down")
    bench.store.tend([])

    bench.tick(-back_ms)
    bench.store.tend([])
    too_early = bench.take(2)
    bench.tick(3_000)

    assert too_early == []
    assert sorted(message for _, message in bench.take(2)) == ["counted down", "waits"]


def test_a_clock_that_slips_by_milliseconds_moves_nothing(bench: Bench) -> None:
    """It is set right all the time, and every look would go through all that waits."""
    bench.push("a")
    bench.store.schedule(bench.take_one(), bench.ms + 3_000, "a")
    due = bench.redis.zrange("delayed", 0, -1, withscores=True)
    bench.store.tend([])

    bench.tick(-20)
    bench.store.tend([])

    assert bench.redis.zrange("delayed", 0, -1, withscores=True) == due


def test_a_clock_that_steps_forward_robs_no_living_worker(bench: Bench) -> None:
    """Every lease has run out at once; those who renew theirs within a lease keep them."""
    bench.push("living", "dead")
    (living, _), (dead, _) = bench.take(2)
    bench.store.tend([living, dead])

    bench.tick(3600_000)
    lost = bench.store.tend([living]).lost
    bench.pass_tended(LEASE_MS + 2_000, living)

    assert lost == []
    assert bench.redis.hkeys("taken") == [living.encode()]
    assert bench.waiting() == ["dead"]


def test_a_message_without_a_priority_stands_in_the_middle(bench: Bench) -> None:
    """Whatever its producer: 0 and 3 overtake it, 6 and 9 wait for it."""
    bench.push("none, old", "none, new")
    for priority in (9, 6, 3, 0):
        bench.push(str(priority), queue=list_of(QUEUE, priority))

    reply = [message for _, message in bench.take(8)]

    assert reply == ["0", "3", "none, old", "none, new", "6", "9"]


@pytest.mark.parametrize(
    ("priority", "step"),
    [(-1, 0), (0, 0), (2, 0), (3, 3), (5, 3), (6, 6), (8, 6), (9, 9), (255, 9), (None, None)],
)
def test_each_priority_has_a_list_that_is_taken_from(
    priority: int | None, step: int | None
) -> None:
    """As with kombu, but for 0, which there is the queue's own list."""
    assert list_of(QUEUE, priority) == (QUEUE if step is None else f"{QUEUE}\x06\x16{step}")


def test_a_task_that_waits_keeps_its_first_date(bench: Bench) -> None:
    """Its message may have none: another Celery client wrote it, and its deadline began once."""
    bench.push("a")
    for date in (bench.ms, bench.ms + 9_000):
        tag = bench.take_one()
        begun = bench.begin(tag)
        bench.wait(begun, tag, enqueued_ms=date)

    tag = bench.take_one()

    assert bench.begin(tag).task["enqueued_ms"] == str(bench.ms)


def test_two_calls_of_a_task_are_out_at_once(bench: Bench) -> None:
    """One attempt ends, the other's worker is lost: only that call may have to be paid."""
    bench.push("a")
    tag = bench.take_one()
    begun = bench.begin(tag)
    for number in (9, 10, 11):
        call = json.dumps({"provider": f"p{number}", "model": "m"})
        bench.store.call("t", begun.fence, number=number, call=call, numbered=number)
    bench.store.call("t", begun.fence, number=10, numbered=11, failed='{"n": 10}')

    bench.pass_tended(LEASE_MS + 2000)
    again = bench.begin(bench.take_one())

    lost = [json.loads(line)["provider"] for line in again.task["lost_calls"].splitlines()]
    assert lost == ["p9", "p11"]
    assert again.task["unknown"] == "2"
    assert again.task["failed"] == '{"n": 10}'
    assert bench.redis.xlen("ledger") == 2


def test_a_call_that_an_older_worker_had_out_is_lost_with_it(bench: Bench) -> None:
    """It wrote one field, without the number of the attempt."""
    bench.push("a")
    bench.begin(bench.take_one())
    call = json.dumps({"provider": "x", "model": "m"})
    bench.redis.hset("task:t", "calling", call)

    bench.pass_tended(LEASE_MS + 2000)
    again = bench.begin(bench.take_one())

    assert again.task["lost_calls"] == call
    assert not bench.redis.hexists("task:t", "calling")


def test_a_call_is_where_an_older_worker_looks_for_it(bench: Bench) -> None:
    """It takes over the task of a worker that is lost, and counts the call in `calling` alone."""
    bench.push("a")
    begun = bench.store.begin("t", bench.take_one(), call="one", numbered=1)

    def out() -> dict[str, str]:
        fields = bench.redis.hgetall("task:t")
        return {key.decode(): value.decode() for key, value in fields.items() if b"calling" in key}

    assert out() == {"calling": "one"}
    for _ in range(2):  # the second time because the reply was lost
        bench.store.call("t", begun.fence, number=2, call="two", numbered=2)
        assert out() == {"calling": "one", "calling:2": "two"}
    for _ in range(2):
        bench.store.call("t", begun.fence, number=1, numbered=2)
        assert out() == {"calling:2": "two"}
    bench.store.call("t", begun.fence, number=3, call="three", numbered=3)
    assert out() == {"calling": "three", "calling:2": "two"}
    bench.store.call("t", begun.fence, number=2, numbered=3)
    bench.store.call("t", begun.fence, number=3, numbered=3)
    assert out() == {}

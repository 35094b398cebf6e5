"""Equal calls: one task makes it, the others wait; whatever becomes of it, none waits for ever."""

from typing import Any

import pytest

from breakwater.messaging.settlement import Settlement
from tasks.delivery.delivery_store import LEASE_MS, Begun
from tasks.delivery.waits import Delay
from tests.delivery.conftest import QUEUE, Bench

ASIDE_MS, LONGEST_ASIDE_MS = 15_000, 300_000
CALL = "d" * 64
WAITING = f"flight:{CALL}:waiting"


def begin(bench: Bench, task_id: str) -> tuple[Begun, str]:
    """Queue a task, and take and begin it."""
    bench.push(task_id)
    tag = bench.take_one()
    return bench.begin(tag, task_id), tag


def share(bench: Bench, begun: Begun, tag: str, task_id: str, **how: Any) -> tuple[str, str]:
    how = {"wait_ms": 3600_000, "keep_s": 60, **how}
    digest = how.pop("digest", CALL)
    return bench.store.share(task_id, digest, fence=begun.fence, tag=tag, **how)


def ask(bench: Bench, task_id: str, **how: Any) -> tuple[str, Begun, str]:
    """Queue a task, begin it, and ask for its answer."""
    begun, tag = begin(bench, task_id)
    return share(bench, begun, tag, task_id, **how)[0], begun, tag


def again(bench: Bench, task_id: str) -> tuple[str, str]:
    """Take a task that was queued before, begin it, and ask for its answer."""
    ((tag, message),) = bench.take()
    assert message == task_id
    return share(bench, bench.begin(tag, task_id), tag, task_id)


def woken(bench: Bench, most: int = 1000) -> list[str]:
    """Return the tasks that a worker takes now."""
    return sorted(message for _ in range(0, most, 100) for _, message in bench.take(100))


def test_one_task_makes_the_call_and_the_others_wait_in_redis(bench: Bench) -> None:
    """Nothing of them is in a worker's hands, or in a queue."""
    reply = [ask(bench, task_id)[0] for task_id in "abc"]

    assert reply == ["own", "waits", "waits"]
    assert bench.redis.hlen("taken") == 1
    assert bench.redis.hlen("begun") == 1
    assert bench.waiting() == []
    assert bench.redis.hgetall("delayed:queues") == {QUEUE.encode(): b"2"}


def test_the_answer_is_kept_and_wakes_them_in_one_step(bench: Bench) -> None:
    """At once, by the bell; each has the answer, and the flight leaves nothing behind."""
    _, owner, tag = ask(bench, "a")
    for task_id in "bc":
        ask(bench, task_id)
    bench.redis.delete(f"bell:{QUEUE}")

    bench.settle(owner, tag, "a", keep_s=60, answer="sealed")

    assert bench.redis.llen(f"bell:{QUEUE}") == 2
    for tag, task_id in bench.take(10):
        begun = bench.begin(tag, task_id)
        assert share(bench, begun, tag, task_id) == ("cached", "sealed")
        assert bench.settle(begun, tag, task_id) == "settled"
    assert bench.redis.ttl(f"cache:{CALL}") in (59, 60)
    assert not bench.redis.keys("flight*")
    assert not bench.redis.keys("task:*")


def test_another_call_shares_nothing(bench: Bench) -> None:
    """Its own digest, its own flight."""
    ask(bench, "a")

    assert ask(bench, "b", digest="e" * 64)[0] == "own"


def test_an_owner_that_asks_again_is_the_owner(bench: Bench) -> None:
    """Our answer was lost."""
    _, owner, tag = ask(bench, "a")

    assert share(bench, owner, tag, "a") == ("own", "")


def test_an_older_fence_asks_for_nothing(bench: Bench) -> None:
    """The same delivery has begun again, since our answer was lost; the newest number counts."""
    begun, tag = begin(bench, "a")
    newer = bench.begin(tag, "a")

    assert share(bench, begun, tag, "a") == ("gone", "")
    assert share(bench, newer, tag, "a") == ("own", "")


def test_a_task_that_was_put_away_is_not_put_away_twice(bench: Bench) -> None:
    """Our answer was lost; meanwhile the call may be nobody's."""
    _, owner, owners = ask(bench, "a")
    _, begun, tag = ask(bench, "b")
    bench.settle(owner, owners, "a")

    assert share(bench, begun, tag, "b") == ("gone", "")
    assert woken(bench) == ["b"]


def test_a_worker_that_slept_through_its_lease_owns_nothing(bench: Bench) -> None:
    """Its message is in the queue again, and whoever takes it asks."""
    begun, tag = begin(bench, "a")
    bench.pass_tended(LEASE_MS + 2000)

    assert share(bench, begun, tag, "a") == ("gone", "")
    assert again(bench, "a") == ("own", "")


def test_when_the_owner_fails_one_of_them_makes_the_call(bench: Bench) -> None:
    """A few are woken, and all but the first wait on."""
    _, owner, tag = ask(bench, "a")
    for number in range(20):
        ask(bench, f"b{number:02}")

    bench.settle(owner, tag, "a", dead={"error": "InvalidRequest", "attempts": "[]"})

    reply = [
        share(bench, bench.begin(tag, task_id), tag, task_id)[0] for tag, task_id in bench.take(100)
    ]
    assert reply == ["own", *["waits"] * 7]
    assert not bench.redis.exists(f"cache:{CALL}")


def test_when_the_owner_is_cancelled_one_of_them_makes_the_call(bench: Bench) -> None:
    """A cancellation is a result that anybody may write."""
    ask(bench, "a")
    ask(bench, "b")

    bench.store.settle(Settlement("a", '"cancelled"', expires_s=60))

    assert again(bench, "b") == ("own", "")


def test_a_cancelled_task_that_waits_wakes_nobody(bench: Bench) -> None:
    """The call is being made; and who is no more is not woken in another's stead."""
    _, owner, tag = ask(bench, "a")
    for task_id in "bc":
        ask(bench, task_id)

    bench.store.settle(Settlement("b", '"cancelled"', expires_s=60))
    assert bench.redis.zscore(WAITING, "b") is None
    before = woken(bench)
    bench.settle(owner, tag, "a", keep_s=60, answer="sealed")

    assert before == []
    assert woken(bench) == ["c"]


def test_a_chosen_one_that_comes_to_nothing_wakes_the_next(bench: Bench) -> None:
    """Its deadline has passed, say: then nobody makes the call."""
    _, owner, tag = ask(bench, "a")
    for number in range(9):
        ask(bench, f"b{number}")
    bench.settle(owner, tag, "a")
    chosen = bench.take(100)

    for tag, task_id in chosen:
        bench.settle(bench.begin(tag, task_id), tag, task_id)

    assert len(chosen) == 8
    assert again(bench, "b8") == ("own", "")


def test_when_the_owner_is_killed_its_call_is_made_by_whoever_comes_first(bench: Bench) -> None:
    """Not before its lease is over; the owner itself, or one of those that wait."""
    ask(bench, "a")
    ask(bench, "b")
    bench.pass_tended(ASIDE_MS + 2000)

    ((first, one), (second, other)) = bench.take(2)
    reply = [
        share(bench, bench.begin(tag, task_id), tag, task_id)[0]
        for tag, task_id in ((first, one), (second, other))
    ]

    assert {one, other} == {"a", "b"}
    assert reply == ["own", "waits"]


def test_an_owner_that_lives_is_waited_for_any_time(bench: Bench) -> None:
    """Whoever waits looks for itself now and then, and waits on."""
    _, _, tag = ask(bench, "a")
    ask(bench, "b")

    for _ in range(4):
        bench.pass_tended(ASIDE_MS, tag)
        assert again(bench, "b") == ("waits", "")
    assert bench.redis.zcard(WAITING) == 1
    assert bench.redis.pttl(WAITING) > 0
    assert not bench.redis.hexists("task:b", "lost")


def test_an_owner_that_waits_for_a_provider_holds_up_nobody(bench: Bench) -> None:
    """Its queue may be parked, and it far behind; the next to look makes the call."""
    _, owner, tag = ask(bench, "a")
    ask(bench, "b")
    bench.wait(owner, tag, "a", wait=Delay(600_000))
    bench.pass_tended(ASIDE_MS)

    assert again(bench, "b") == ("own", "")
    assert not bench.redis.exists(WAITING)
    bench.pass_tended(600_000, *bench.redis.hkeys("taken"))
    assert again(bench, "a") == ("waits", "")


def test_a_late_answer_of_a_former_owner_serves_all(bench: Bench) -> None:
    """It was paid for; also while another one makes the call."""
    _, owner, tag = ask(bench, "a")
    ask(bench, "b")
    ask(bench, "c")
    bench.redis.hdel("taken", tag)  # as if it had slept through its lease
    bench.pass_tended(ASIDE_MS)
    both = bench.take(2)
    reply = [share(bench, bench.begin(one, each), one, each)[0] for one, each in both]

    assert bench.settle(owner, tag, "a", keep_s=60, answer="sealed") == "settled"

    assert reply == ["own", "waits"]
    assert again(bench, both[1][1]) == ("cached", "sealed")


def test_nobody_waits_when_answers_are_not_worth_keeping(bench: Bench) -> None:
    """Else a thousand such calls would be made one after the other."""
    _, owner, tag = ask(bench, "a")
    for task_id in "bc":
        ask(bench, task_id)

    bench.settle(owner, tag, "a", keep_s=60)

    for tag, task_id in bench.take(10):
        assert share(bench, bench.begin(tag, task_id), tag, task_id) == ("alone", "")


def test_a_deadline_is_waited_for_no_longer(bench: Bench) -> None:
    """The task comes back when it has run out."""
    _, _, tag = ask(bench, "a")
    ask(bench, "b", wait_ms=3000)

    bench.pass_tended(3001, tag)

    assert woken(bench) == ["b"]


@pytest.mark.parametrize(
    ("others", "aside_ms"), [(700, 15_000), (2_000, 40_000), (20_000, 300_000)]
)
def test_of_thousands_that_wait_few_look_at_a_time(
    bench: Bench, others: int, aside_ms: int
) -> None:
    """They are woken when there is an answer; looking for it is for the case that nobody wakes them."""
    ask(bench, "a")
    bench.redis.zadd(WAITING, dict.fromkeys(map(str, range(others)), 0))

    _, _, tag = ask(bench, "b")

    assert bench.redis.zscore("delayed", tag) == bench.ms + aside_ms


def test_thousands_are_woken_in_steps(bench: Bench) -> None:
    """A hundred by the settlement, then as many by each that has the answer; none is left over."""
    _, owner, tag = ask(bench, "a")
    for number in range(350):
        ask(bench, f"b{number}")

    bench.settle(owner, tag, "a", keep_s=60, answer="sealed")
    left = [bench.redis.zcard(WAITING)]
    begun = []
    while batch := bench.take(100):
        for tag, task_id in batch:
            begun.append((bench.begin(tag, task_id), tag, task_id))
            assert share(bench, *begun[-1]) == ("cached", "sealed")
            left.append(bench.redis.zcard(WAITING))
    for each in begun:
        bench.settle(*each)

    assert left[:5] == [250, 150, 50, 0, 0]
    assert len(begun) == 350
    assert not bench.redis.exists("delayed", WAITING)


def test_a_clock_that_steps_back_keeps_nobody_waiting(bench: Bench) -> None:
    """Though nobody wakes them: the owner waits for a provider."""
    _, owner, tag = ask(bench, "a")
    _, _, aside = ask(bench, "b")
    bench.wait(owner, tag, "a", wait=Delay(600_000))
    bench.tick(-3600_000)

    bench.store.tend([])
    dues = [bench.redis.zscore(key, aside) for key in ("delayed", "flights")]
    planned_ms = bench.ms + ASIDE_MS
    bench.pass_tended(ASIDE_MS + 4000)

    assert dues == [planned_ms] * 2
    assert again(bench, "b") == ("own", "")


def test_what_is_due_is_watched_until_it_is_taken(bench: Bench) -> None:
    """The clock may step back before any worker has looked."""
    ask(bench, "a")
    _, _, aside = ask(bench, "b")

    bench.pass_tended(ASIDE_MS + 2000)
    watched = bench.redis.zscore("flights", aside)
    bench.take()
    bench.store.tend([])

    assert watched
    assert not bench.redis.exists("flights")


def test_a_flight_that_was_forgotten_keeps_nobody_waiting(bench: Bench) -> None:
    """By hand, or a server that lost its last second: the owner's settlement wakes them all the same."""
    _, owner, tag = ask(bench, "a")
    ask(bench, "b")
    bench.redis.delete(f"flight:{CALL}")

    bench.settle(owner, tag, "a", keep_s=60, answer="sealed")

    assert again(bench, "b") == ("cached", "sealed")


def test_what_was_flushed_is_gone_and_no_task_hangs_by_it(bench: Bench) -> None:
    """FLUSHALL takes queues and flights; who was to make the call restores its message first."""
    _, owner, tag = ask(bench, "a")
    ask(bench, "b")
    bench.redis.flushall()
    bench.tick(0)

    assert share(bench, owner, tag, "a") == ("lost", "")
    assert ask(bench, "c")[0] == "own"


def test_another_roles_file_makes_another_call(bench: Bench) -> None:
    """An owner that comes to ask something else leaves its old call to those that wait for it."""
    _, owner, tag = ask(bench, "a")
    ask(bench, "b")

    assert share(bench, owner, tag, "a", digest="e" * 64) == ("own", "")

    assert again(bench, "b") == ("own", "")


def test_an_answer_whose_settlement_was_repeated_is_kept_once(bench: Bench) -> None:
    """Our answer was lost: the second time changes nothing."""
    _, owner, tag = ask(bench, "a")

    reply = [bench.settle(owner, tag, "a", keep_s=1, answer="sealed") for _ in range(2)]

    assert reply == ["settled", "settled"]
    assert bench.redis.get(f"cache:{CALL}") == b"sealed"


def test_a_superseded_owner_keeps_no_answer(bench: Bench) -> None:
    """Another delivery of its task has begun, and makes the call."""
    _, old, slept = ask(bench, "a")
    bench.pass_tended(LEASE_MS + 2000)
    tag = bench.take_one()
    bench.begin(tag, "a")

    assert bench.settle(old, slept, "a", keep_s=60, answer="sealed") == "superseded"
    assert not bench.redis.exists(f"cache:{CALL}")


def test_an_answer_is_kept_no_longer_though_the_servers_clock_stepped_back(bench: Bench) -> None:
    """Redis keeps a key until a moment, which is further away then."""
    _, owner, tag = ask(bench, "a")
    bench.settle(owner, tag, "a", keep_s=60, answer="sealed")
    bench.redis.expire(f"cache:{CALL}", 3660)

    reply = ask(bench, "b", keep_s=60)[0]

    assert reply == "cached"
    assert 0 < bench.redis.ttl(f"cache:{CALL}") <= 60

"""Dead letters: listed, shown, retried and dropped, on a real server."""

import json
import multiprocessing
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from breakwater.attempt import Attempt
from breakwater.messaging.journal import Command, Operations
from breakwater.messaging.names import RESULT
from breakwater.messaging.settlement import Settlement
from tasks.delivery.delivery_store import DeliveryStore
from tasks.operations.dead_letters import DeadLetter, DeadLetters, LetterFilter
from tasks.operations.operator import Operator

DAY_MS = 24 * 3600 * 1000
ATTEMPT = {
    "provider": "claude", "model": "m", "outcome": "failed", "error": "InvalidRequest",
    "status": 400, "latency_ms": 1, "cost_usd": None, "why": "first of the chain",
}  # fmt: skip

Fail = Callable[..., DeadLetter]


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def letters(server: redis.Redis) -> DeadLetters:
    return DeadLetters(server)


@pytest.fixture
def operator(server: redis.Redis) -> Operator:
    return Operator(server)


@pytest.fixture
def fail(server: redis.Redis, letters: DeadLetters) -> Fail:
    """Take a task, begin it and fail it, as a worker does."""
    store = DeliveryStore(server)

    def fail(
        task_id: str, role: str = "coder", error: str = "InvalidRequest", *, priority: str = ""
    ) -> DeadLetter:
        server.lpush(f"role.{role}{priority}", message(role, "the prompt"))
        tag = take(server, role)[0]
        begun = store.begin(task_id, tag)
        dead = {"role": role, "error": error, "message": "no", "attempts": json.dumps([ATTEMPT])}
        meta = json.dumps({"status": "FAILURE", "n": str(server.incr("n"))})
        store.settle(Settlement(task_id, meta, fence=begun.fence, tag=tag, expires_s=60, dead=dead))
        letter = letters.get(task_id)
        assert letter
        return letter

    return fail


def message(role: str, prompt: str) -> str:
    body = b64encode(json.dumps([[role, prompt], {"metadata": {"a": 1}}, {}]).encode()).decode()
    return json.dumps({"body": body, "headers": {}, "properties": {"body_encoding": "base64"}})


def take(server: redis.Redis, role: str) -> list[str]:
    store = DeliveryStore(server)
    lists, arguments = store.take_command([f"role.{role}"], 1, f"tag{server.incr('tags')}")
    taken = store.script("take")(keys=lists, args=[arguments])
    return [word.decode() for word in taken]


def test_letters_come_newest_first_and_page_by_page(letters: DeadLetters, fail: Fail) -> None:
    """A page begins after the last letter of the page before."""
    for n in range(5):
        fail(f"t{n}")

    first = [*letters.find()][:2]
    rest = [*letters.find(before=first[-1].id)]

    assert [letter.task_id for letter in first + rest] == ["t4", "t3", "t2", "t1", "t0"]


def test_letters_can_be_selected_by_role_error_id_and_age(
    server: redis.Redis, letters: DeadLetters, fail: Fail
) -> None:
    """Each condition narrows the search."""
    server.xadd(
        "dead", {"task_id": "old", "at_ms": "1", "error": "WorkerLost"}, id="1-1"
    )  # since 1970
    fail("a", "coder", "InvalidRequest")
    fail("b", "planner", "InvalidRequest")
    fail("c", "planner", "ChainExhausted")

    def found(wanted: LetterFilter) -> list[str]:
        return [letter.task_id for letter in letters.find(wanted)]

    assert found(LetterFilter(role="planner")) == ["c", "b"]
    assert found(LetterFilter(role="planner", error="InvalidRequest")) == ["b"]
    assert found(LetterFilter(names=frozenset({"a", "c"}))) == ["c", "a"]
    assert found(LetterFilter(names=frozenset({"1-1"}))) == ["old"]
    assert found(LetterFilter(older_than_s=3600)) == ["old"]
    assert found(LetterFilter(newer_than_s=3600)) == ["c", "b", "a"]


def test_a_letter_has_its_whole_history_and_its_prompt_by_reference(
    server: redis.Redis, letters: DeadLetters, fail: Fail
) -> None:
    """The stream does not contain the prompt."""
    letter = fail("a")

    assert (letter.role, letter.queue, letter.error, letter.message) == (
        "coder", "role.coder", "InvalidRequest", "no",
    )  # fmt: skip
    assert letter.attempts == [Attempt.from_dict(ATTEMPT)]
    assert letters.prompt(letter) == "the prompt"
    assert b"the prompt" not in b"".join(server.xrange("dead")[0][1].values())


def test_a_prompt_that_cannot_be_read_is_an_error(server: redis.Redis, fail: Fail) -> None:
    """A message may be deleted, or not valid."""
    letters, letter = DeadLetters(server), fail("a")

    for entry in (
        b"role.coder\nnot JSON",
        b'role.coder\n{"body": "####"}',
        b'role.coder\n{"body": "W10="}',
    ):
        server.hset("dead:messages", letter.id, entry)
        with pytest.raises(ValueError, match="the message of a contains no prompt"):
            letters.prompt(letter)
    server.hdel("dead:messages", letter.id)
    with pytest.raises(ValueError, match="the message of a no longer exists"):
        letters.prompt(letter)


def test_a_retry_starts_again_and_keeps_the_history(
    server: redis.Redis, letters: DeadLetters, fail: Fail, operator: Operator
) -> None:
    """The error is deleted, the message is the last of its queue, and its deadline starts now."""
    letter = fail("a", priority="\x06\x163")
    server.lpush("role.coder\x06\x163", "waits already")
    before_ms = int(server.time()[0]) * 1000

    outcome = operator.retry(letter)

    assert outcome == "retried"
    assert not server.exists(RESULT + "a", "dead:messages")
    assert not server.xlen("dead")
    assert server.lrange("role.coder\x06\x163", 0, -1) == [
        message("coder", "the prompt").encode(), b"waits already",
    ]  # fmt: skip
    assert server.llen("bell:role.coder")
    task = server.hgetall("task:a")
    assert int(task[b"enqueued_ms"]) >= before_ms
    assert [a["error"] for a in json.loads(task[b"attempts"])] == ["InvalidRequest", "Retried"]


def test_a_task_that_fails_again_has_both_lives_in_its_letter(
    server: redis.Redis, letters: DeadLetters, fail: Fail, operator: Operator
) -> None:
    """`begin` returns the attempts of the letter to the worker."""
    operator.retry(fail("a"))

    begun = DeliveryStore(server).begin("a", take(server, "coder")[0])

    assert begun.verdict == "run"
    assert [a["error"] for a in json.loads(begun.task["attempts"])] == ["InvalidRequest", "Retried"]


@pytest.mark.parametrize("status", ["SUCCESS", "REVOKED", "FAILURE"])
def test_a_later_result_is_not_undone(
    status: str, server: redis.Redis, letters: DeadLetters, fail: Fail, operator: Operator
) -> None:
    """The id was queued again after its error had expired, and was answered: that result stays."""
    letter = fail("a")
    server.set(RESULT + "a", json.dumps({"status": status}))

    outcome = operator.retry(letter)

    assert outcome == "answered"
    assert json.loads(server.get(RESULT + "a") or "") == {"status": status}
    assert letters.get("a") == letter
    assert not server.exists("role.coder")


def test_a_letter_whose_error_has_expired_can_be_retried(
    server: redis.Redis, letters: DeadLetters, fail: Fail, operator: Operator
) -> None:
    """Results are kept for a day, letters for thirty."""
    letter = fail("a")
    server.delete(RESULT + "a")

    assert operator.retry(letter) == "retried"


def test_a_task_that_is_queued_again_keeps_its_own_fields(
    server: redis.Redis, letters: DeadLetters, fail: Fail, operator: Operator
) -> None:
    """Its id was queued again and waits: a second message causes no second payment."""
    letter = fail("a")
    server.delete(RESULT + "a")
    server.hset("task:a", mapping={"fence": "7", "attempts": "[]"})

    assert operator.retry(letter) == "retried"

    assert server.hgetall("task:a") == {b"fence": b"7", b"attempts": b"[]"}


def test_a_letter_without_its_message_stays(
    server: redis.Redis, letters: DeadLetters, fail: Fail, operator: Operator
) -> None:
    """Only its history is left; a retry, which is not possible, must not delete it."""
    letter = fail("a")
    server.delete("dead:messages")

    assert operator.retry(letter) == "lost"

    assert letters.get("a") == letter
    assert server.exists(RESULT + "a")


def _retry_once(url: str, letter: DeadLetter, gate: "multiprocessing.Barrier") -> str:  # type: ignore[valid-type]
    operator = Operator(redis.Redis.from_url(url))
    gate.wait()
    return operator.retry(letter)


def test_operators_who_retry_at_once_queue_one_message(
    redis_url: str, server: redis.Redis, fail: Fail
) -> None:
    """The second operator learns that the letter is gone."""
    letter = fail("a")

    with multiprocessing.Manager() as manager, multiprocessing.Pool(4) as pool:
        outcomes = pool.starmap(_retry_once, [(redis_url, letter, manager.Barrier(4))] * 4)

    assert sorted(outcomes) == ["gone", "gone", "gone", "retried"]
    assert server.llen("role.coder") == 1


def test_the_queue_of_a_removed_role_is_replaced_by_the_common_one(
    server: redis.Redis,
    letters: DeadLetters,
    fail: Fail,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
    operator: Operator,
) -> None:
    """No worker consumes it; from the common queue the task fails with UnknownRole."""
    roles = tmp_path / "roles.yaml"
    roles.write_text("providers: {}\nroles: {planner: {chain: []}}\n")
    monkeypatch.setenv("ROLES_FILE", str(roles))
    coder, planner = fail("a", "coder", priority="\x06\x169"), fail("b", "planner")

    operator.retry(coder)
    operator.retry(planner)

    assert server.llen("celery\x06\x169") == 1
    assert server.llen("role.planner") == 1
    assert server.llen("bell:celery") == 1


def test_a_message_that_is_not_a_task_is_requeued_unchanged(
    server: redis.Redis, letters: DeadLetters, operator: Operator
) -> None:
    """It has no task id; the letter's own id names it."""
    server.lpush("role.coder", b"\x80garbage")
    DeliveryStore(server).dead_letter(
        take_raw(server), {"error": "InvalidMessage", "message": "not JSON"}
    )
    (letter,) = letters.find()

    assert (letter.task_id, letter.name, letter.queue) == ("", letter.id, "role.coder")
    assert operator.retry(letter) == "retried"

    assert server.lrange("role.coder", 0, -1) == [b"\x80garbage"]
    assert not server.exists("task:", RESULT)


def take_raw(server: redis.Redis) -> str:
    store = DeliveryStore(server)
    lists, arguments = store.take_command(["role.coder"], 1, "raw")
    return store.script("take")(keys=lists, args=[arguments])[0].decode()


def test_a_dead_message_fails_its_task_unless_the_task_has_begun(
    server: redis.Redis, letters: DeadLetters, operator: Operator
) -> None:
    """An unreadable message proves nothing about a valid message with the same id."""
    store = DeliveryStore(server)
    for id_, fields in (("new", {}), ("begun", {"fence": "1"}), ("retried", {"enqueued_ms": "1"})):
        if fields:
            server.hset(f"task:{id_}", mapping=fields)
        server.lpush("role.coder", "x")
        store.dead_letter(
            take_raw(server), {"error": "InvalidMessage"}, task_id=id_, meta="{}", expires_s=9
        )

    assert server.get(RESULT + "new") == b"{}"
    assert server.get(RESULT + "retried") == b"{}"
    assert server.get(RESULT + "begun") is None
    assert [letter.task_id for letter in letters.find()] == ["retried", "begun", "new"]
    assert operator.retry(letters.get("new")) == "retried"  # type: ignore[arg-type]


def test_dropped_letters_leave_nothing_behind(
    server: redis.Redis, letters: DeadLetters, fail: Fail, operator: Operator
) -> None:
    """The number of existing letters is returned; the error stays for its caller."""
    a, b = fail("a"), fail("b")
    operator.retry(a)

    assert operator.drop([a, b, replace(b, id="1-1")]) == 1

    assert not server.exists("dead:messages")
    assert not server.xlen("dead")
    assert server.exists(RESULT + "b")


def test_one_command_is_one_entry_that_names_its_user(
    server: redis.Redis, fail: Fail, operator: Operator
) -> None:
    """One operator object serves several users; each kind of change has its own entry."""
    ann, bob = Command("ann"), Command("bob\n")

    operator.retry(fail("a"), ann)
    operator.retry(fail("b"), bob)
    operator.retry(fail("c"), ann)
    operator.drop([fail("d")], ann)

    assert [(each.who, each.what, each.number) for each in Operations(server).find()] == [
        ("ann", "dead drop", 1),
        ("ann", "dead retry", 2),
        ("bob?", "dead retry", 1),
    ]


def test_a_letter_is_written_even_without_its_message(
    server: redis.Redis, letters: DeadLetters, operator: Operator
) -> None:
    """The result arrives late, after the message was requeued: the cause of the failure is kept."""
    store = DeliveryStore(server)
    server.lpush("role.coder", message("coder", "x"))
    tag = take_raw(server)
    begun = store.begin("a", tag)
    store.return_lost([tag])

    store.settle(
        Settlement("a", "{}", fence=begun.fence, tag=tag, expires_s=9, dead={"error": "WorkerLost"})
    )

    letter = letters.get("a")
    assert letter
    assert (letter.error, letter.queue) == ("WorkerLost", "")
    assert operator.retry(letter) == "lost"


def test_letters_older_than_thirty_days_are_deleted_with_their_messages(
    server: redis.Redis, letters: DeadLetters, fail: Fail
) -> None:
    """Any worker that renews its deliveries deletes some of them, completely."""
    now_ms = server.time()[0] * 1000
    for age_ms in (31 * DAY_MS, 30 * DAY_MS + 60_000, 30 * DAY_MS - 60_000):
        id_ = server.xadd("dead", {"task_id": "x", "at_ms": "1"}, id=f"{now_ms - age_ms}-0")
        server.hset("dead:messages", id_, "role.coder\nx")
    young = fail("young")

    DeliveryStore(server).tend([])

    ids = [letter.id for letter in letters.find()]
    assert ids == [young.id, f"{now_ms - 30 * DAY_MS + 60_000}-0"]
    assert {key.decode() for key in server.hkeys("dead:messages")} == set(ids)

"""Whatever lies in a queue, no worker stops for it, and the queue behind it is served."""

import json
from collections.abc import Iterable
from hashlib import sha1
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, seed, settings

from breakwater.messaging.names import RESULT
from tests.support import hostile
from tests.support.fleet import Fleet, wait_for

PUT_IN_FIRST = "role.coder"
ASK = """
import json
from tasks import complete
print(complete.delay("coder", "the one behind").get(timeout=180)["text"])
"""


class Queue:
    """The server, seen by somebody who may write to it."""

    def __init__(self, url: str) -> None:
        self.server = redis.Redis.from_url(url)

    def put(self, messages: Iterable[bytes], queue: str = PUT_IN_FIRST) -> None:
        for message in messages:
            self.server.lpush(queue, message)

    def is_empty(self) -> bool:
        """Nothing waits but what is left to others, and nothing is in anybody's hands."""
        hands = ("taken", "taken:until", "begun", "delayed")
        return len(self._waiting()) == self.left() and not self.server.exists(*hands)

    def left(self) -> int:
        """How many messages of tasks that are not ours lie in their queues."""
        known = {
            sha
            for key in self.server.scan_iter("foreign:*")
            for sha in self.server.zrange(key, 0, -1)
        }
        return sum(sha1(message).hexdigest().encode() in known for message in self._waiting())

    def _waiting(self) -> list[bytes]:
        lists = [b"celery", *self.server.scan_iter("role.*")]
        return [message for each in lists for message in self.server.lrange(each, 0, -1)]

    def letters(self) -> list[dict[str, str]]:
        return [
            {key.decode(): value.decode(errors="replace") for key, value in fields.items()}
            for _, fields in self.server.xrange("dead")
        ]

    def answered(self) -> list[str]:
        """The ids of the tasks that have a result other than an error."""
        ids = [key.decode()[len(RESULT) :] for key in self.server.scan_iter(f"{RESULT}*")]
        return [id_ for id_ in ids if self.result(id_)["status"] != "FAILURE"]

    def result(self, task_id: str) -> dict[str, Any]:
        return json.loads(self.server.get(RESULT + task_id) or "{}")


@pytest.fixture
def queue(redis_url: str) -> Queue:
    return Queue(redis_url)


def assert_served(workers: Fleet, queue: Queue) -> None:
    """What lies behind is answered, nothing is left in hands, nobody died, nothing was told."""
    assert "answer to" in workers.run(ASK, timeout_s=100)
    wait_for(queue.is_empty, 40, lambda: (queue.server.hgetall("taken"), workers.logs()[-3000:]))
    assert [worker.poll() for worker in workers.workers] == [None] * len(workers.workers)
    for word in ("CANARY", "Unrecoverable", "\x1b"):
        assert not [line[:2000] for line in workers.logs().splitlines() if word in line], word


@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent"])
def test_no_message_of_the_corpus_stops_a_worker(pool: str, workers: Fleet, queue: Queue) -> None:
    """Every one is a dead letter that says why, or a task that was answered."""
    workers.start(1, pool, 4)
    messages = hostile.corpus()

    queue.put(messages)
    assert_served(workers, queue)

    letters, answered = queue.letters(), queue.answered()
    silent = [letter for letter in letters if not (letter["error"] and letter["message"])]
    nowhere = len(messages) + 1 - len(letters) - len(answered) - queue.left()
    assert (nowhere, silent) == (0, [])
    assert "CANARY" not in json.dumps(letters)


def test_a_caller_is_told_why(workers: Fleet, queue: Queue) -> None:
    """A message with an id that can be used settles its task with a typed error."""
    workers.start()
    queue.put([
        hostile.changed("body", hostile.whole("body", b"garbage")),
        hostile.changed("limit", hostile.header("timelimit", "x")),
        hostile.changed("bomb", hostile.packed("gzip", lambda _: hostile.zlib.compress(b" " * 10**8))),
    ])  # fmt: skip

    printed = workers.run("""
from tasks import app
for task_id in ("body", "limit", "bomb"):
    try:
        app.AsyncResult(task_id).get(timeout=180)
    except Exception as error:
        print(type(error).__name__, error)
""")

    assert printed.splitlines() == [
        "InvalidMessage its body cannot be decoded: DecodeError",
        "InvalidMessage its header 'timelimit' does not fit: a str that Celery cannot use",
        "InvalidMessage its body is not whole, or has more than 16777216 bytes when decompressed",
    ]


def test_a_message_of_50_mb_is_not_even_read(workers: Fleet, queue: Queue) -> None:
    """It is a dead letter before it crosses the wire; retried, it is one again."""
    workers.start()

    queue.put([hostile.HUGE])
    assert_served(workers, queue)

    (letter,) = queue.letters()
    assert letter["error"] == "MessageTooLarge"
    assert letter["message"] == "a message of 50000000 bytes; at most 16777216 are taken"
    workers.command("breakwater", "dead", "retry", "--all")
    wait_for(lambda: len(queue.letters()) == 1 and not queue.server.llen(PUT_IN_FIRST))


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_no_command_stops_a_worker(pool: str, workers: Fleet, queue: Queue) -> None:
    """Who can publish reaches all workers at once; a number ended every one of them."""
    workers.start(1, pool, 4)

    wait_for(lambda: queue.server.publish("/0.celery.pidbox", b"5"))

    for data in hostile.COMMANDS:
        assert queue.server.publish("/0.celery.pidbox", data)

    assert_served(workers, queue)
    pinged = workers.command("celery", "-A", "workers", "inspect", "ping", "--json")
    assert json.loads(pinged.stdout) == {"w0@test": {"ok": "pong"}}
    # After this Celery subscribes anew, and misses what is published meanwhile.
    assert "Control command error" not in workers.logs()


def test_protocol_1_and_compression_are_served(workers: Fleet, queue: Queue) -> None:
    """What clients of other languages and `compression="gzip"` send is sound."""
    workers.start()

    queue.put([
        hostile.raw(hostile.old("old")),
        hostile.changed("packed", hostile.packed("gzip", hostile.zlib.compress)),
    ])  # fmt: skip

    wait_for(lambda: queue.result("old") and queue.result("packed"), 30, workers.logs)
    assert [queue.result(id_)["status"] for id_ in ("old", "packed")] == ["SUCCESS"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [150, pytest.param(1_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_no_mutant_stops_a_worker(number: int, workers: Fleet, queue: Queue) -> None:
    """Sound messages with parts replaced by anything."""
    workers.start(1, "threads", 8)
    drawn: list[bytes] = []

    @seed(number)
    @settings(
        max_examples=number // 10,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile.mutants(10))
    def draw(messages: list[bytes]) -> None:
        drawn.extend(messages)

    draw()
    messages = [m.replace(b"drawn-", b"drawn-%d-" % n) for n, m in enumerate(drawn[:number])]

    queue.put(messages)
    assert_served(workers, queue)

    known = len(queue.letters()) + len(list(queue.server.scan_iter(f"{RESULT}*")))
    waiting = queue.server.zcard("delayed") + queue.left()
    assert known + waiting >= len(set(messages))
    assert all(letter["error"] and letter["message"] for letter in queue.letters())

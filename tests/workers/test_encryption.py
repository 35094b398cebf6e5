"""With keys, nothing of a prompt or an answer lies in Redis in the clear, at no time."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet

from simulator.client import Simulator
from tests.support.fleet import Fleet, wait_for

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
ENQUEUE = """
from tasks import app, complete
from celery import chord
options = {"system": "CANARY-SYSTEM", "metadata": {"of": "CANARY-OPTION"}}
for number in range(4):
    complete.apply_async(("coder", f"CANARY-PROMPT {number}"), options, task_id=f"t{number}")
complete.apply_async(("coder", "CANARY-PROMPT"), task_id="later", countdown=2)
complete.apply_async(("coder", "CANARY-PROMPT"), {"deadline_s": 0.001, **options}, task_id="late", countdown=0.5)
app.send_task("complete", ("coder", "CANARY-PROMPT"), options, task_id="sent", compression="gzip")
both = [complete.s(role, "CANARY-PROMPT") for role in ("planner", "clarifier")]
chord(both)(complete.s("reviewer").set(task_id="chord"))
"""
READ = """
from tasks import app
for task_id in ("t0", "t1", "t2", "t3", "later", "sent", "chord"):
    print(app.AsyncResult(task_id).get(timeout=180)["text"])
try:
    app.AsyncResult("late").get(timeout=180)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture
def shared(redis_url: str) -> Iterator[Any]:
    """Redis, seen by somebody without a key; what DUMP shows is not compressed."""
    client = redis.Redis.from_url(redis_url)
    client.config_set("rdbcompression", "no")
    yield client
    client.config_set("rdbcompression", "yes")


def everything(shared: Any) -> bytes:
    return b"".join(key + (shared.dump(key) or b"") for key in shared.scan_iter())


def words_of(answers: str) -> list[bytes]:
    """Return what would betray an answer: its longest words, and their look in base64."""
    return [word.encode() for word in re.findall(r"[A-Za-z]{7,}", answers)][:20]


def test_nothing_is_in_the_clear_during_and_after_a_run(
    workers: Fleet, simulator: Simulator, shared: Any
) -> None:
    """In queues, in hand, delayed, as results, errors, parts of chords and dead letters."""
    workers.environ["BREAKWATER_ENCRYPTION_KEYS"] = NEW
    for label in ("local", "claude", "gpt"):  # so that each moment can be seen
        simulator.settings(label, latency="held")
    listener = shared.pubsub()
    listener.psubscribe("*")

    workers.run(ENQUEUE)
    seen = everything(shared)
    workers.start(1, "threads", 2)
    wait_for(lambda: shared.hlen("begun") == 2)
    seen += everything(shared)
    simulator.release("local")
    simulator.release("claude")
    wait_for(lambda: shared.keys("celery-taskset-meta-*.j"))  # a part of the chord is answered
    seen += everything(shared)
    simulator.release("gpt")
    answers = workers.run(READ)
    seen += everything(shared) + b"".join(
        message["data"] for message in iter(listener.get_message, None)
        if isinstance(message["data"], bytes)
    )  # fmt: skip
    letter = json.loads(workers.command("breakwater", "dead", "show", "late", "--json").stdout)

    assert "DeadlineExceeded" in answers
    assert words_of(answers)
    assert shared.xlen("dead") == 1
    for canary in (b"CANARY", b"Q0FOQVJZ", *words_of(answers.replace("DeadlineExceeded", ""))):
        assert canary not in seen, canary
    assert letter["options"]["metadata"] == {"of": "CANARY-OPTION"}


@pytest.mark.slow
def test_keys_are_changed_one_after_the_other(workers: Fleet) -> None:
    """The first encrypts, all decrypt: what was written with the old key is still read."""
    workers.environ["BREAKWATER_ENCRYPTION_KEYS"] = OLD
    workers.run(ENQUEUE)

    workers.environ["BREAKWATER_ENCRYPTION_KEYS"] = f"{NEW}, {OLD}"
    workers.start(1, "prefork", 2)
    workers.run(READ)
    workers.environ["BREAKWATER_ENCRYPTION_KEYS"] = NEW

    assert "DeadlineExceeded" in workers.run(READ)


@pytest.mark.slow
def test_whoever_has_no_key_is_told_so(workers: Fleet, shared: Any) -> None:
    """A worker makes it a dead letter, which can be retried; a reader gets an error that says why."""
    workers.environ["BREAKWATER_ENCRYPTION_KEYS"] = OLD
    workers.run('from tasks import complete; complete.apply_async(("coder", "hi"), task_id="t")')

    workers.environ["BREAKWATER_ENCRYPTION_KEYS"] = NEW
    workers.start(1, "threads", 2)
    wait_for(lambda: shared.xlen("dead") == 1)
    dead = workers.command("breakwater", "dead", "show", "t")
    assert "none of the keys in BREAKWATER_ENCRYPTION_KEYS here decrypts it" in dead.stdout
    workers.stop()

    del workers.environ["BREAKWATER_ENCRYPTION_KEYS"]
    told = workers.run("""
from tasks import app
from breakwater.errors import ConfigError
try:
    app.AsyncResult("t").get(timeout=180)
except ConfigError as error:
    print(error)
""")
    assert "it is encrypted, and BREAKWATER_ENCRYPTION_KEYS is not set here" in told

    workers.environ["BREAKWATER_ENCRYPTION_KEYS"] = OLD
    assert workers.command("breakwater", "dead", "retry", "t").returncode == 0
    workers.start(1, "threads", 2)
    wait_for(lambda: shared.get("celery-task-meta-t") is not None)
    printed = workers.run(
        'from tasks import app; print(app.AsyncResult("t").get(timeout=180)["role"])'
    )
    assert printed.strip() == "coder"


def test_a_key_that_is_none_ends_the_worker_at_once(workers: Fleet) -> None:
    """It says which of them, how to make one, and not what it is."""
    workers.environ["BREAKWATER_ENCRYPTION_KEYS"] = f"{NEW},hunter2"

    done = workers.command("celery", "-A", "workers", "worker", "--pool", "solo")

    assert done.returncode == 78
    assert done.stderr.startswith("key 2 of BREAKWATER_ENCRYPTION_KEYS is not a valid Fernet key")
    assert "hunter2" not in done.stderr
    assert NEW not in done.stderr

"""A worker over a database where another program has keys of our names."""

import time

import pytest
import redis

from tests.support.fleet import Fleet, wait_for

pytestmark = pytest.mark.slow

ASK = 'from tasks import complete; print(complete.delay("planner", "hi").get(timeout=60)["role"])'
TRY = """
from tasks import complete
from breakwater.errors import QueueUnavailable
try:
    complete.delay("planner", "hi")
except QueueUnavailable as error:
    print(error)
"""


def test_foreign_keys_are_named_and_nothing_loops_or_is_lost(
    workers: Fleet, redis_url: str
) -> None:
    """Those that are needed stop the worker for as long as they are there; others do not."""
    client = redis.Redis.from_url(redis_url)
    client.rpush("taken", "x")
    client.set("delayed", "x")
    workers.start(1)
    wait_for(lambda: "redis.foreign_key" in workers.log(), 60)
    workers.run(
        'from tasks import complete; complete.apply_async(("planner", "hi"), task_id="t-1")'
    )

    before = client.info("stats")["total_commands_processed"]
    time.sleep(3)
    commands = client.info("stats")["total_commands_processed"] - before
    doctor = workers.command("breakwater", "doctor").stdout
    queues = workers.command("breakwater", "queues")

    assert "key 'taken' is a list, and ours is a hash" in workers.log()
    assert "key 'delayed' is a string, and ours is a zset" in workers.log()
    assert "lost" not in workers.log().lower()
    assert commands < 1000
    assert "key taken: it is a list, ours is a hash" in doctor
    assert "Traceback" not in queues.stderr
    assert client.llen("role.planner") == 1
    client.delete("taken", "delayed")
    wait_for(lambda: client.exists("celery-task-meta-t-1"), 60)

    client.delete("workers", "paused", "queues")
    for key in ("workers", "paused", "queues"):
        client.set(key, "x")
    assert workers.run(ASK).strip() == "planner"
    for words in ("workers", "queues", "pause planner"):
        done = workers.command("breakwater", *words.split())
        assert "Traceback" not in done.stdout + done.stderr, words
        if done.returncode:
            assert "is a string, and ours is a" in done.stdout + done.stderr, words
    client.delete("workers", "paused", "queues")

    client.set("role.planner", "x")
    assert "key 'role.planner' is a string, and ours is a list" in workers.run(TRY)
    assert "lost" not in workers.log().lower()

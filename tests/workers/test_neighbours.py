"""Workers keep to Redis and their tasks; what Celery's workers tell each other is left out."""

import pytest
import redis

from tests.support.fleet import Fleet, wait_for

HEARTBEATS = "/0.celeryev/worker.heartbeat"


def heard(client: redis.Redis, channel: str, seconds: float) -> int:
    """Count what comes by a channel."""
    with client.pubsub(ignore_subscribe_messages=True) as ear:
        ear.subscribe(channel)
        ear.get_message(timeout=1)
        return sum(ear.get_message(timeout=0.5) is not None for _ in range(int(seconds / 0.5)))


@pytest.mark.slow
def test_workers_do_not_talk_and_are_reached_all_the_same(workers: Fleet, redis_url: str) -> None:
    """Heartbeats of which each hears every other's cost the square of their number."""
    client = redis.Redis.from_url(redis_url)
    workers.start(2)

    asked = workers.command("celery", "-A", "workers", "inspect", "ping")
    listed = workers.command("breakwater", "workers")

    for name in ("w0@test", "w1@test"):
        assert f"{name}: OK" in asked.stdout
        assert name in listed.stdout
    assert not client.pubsub_channels("*celeryev*")
    assert heard(client, HEARTBEATS, 5) == 0
    assert "mingle" not in workers.logs()


def test_who_asks_for_events_sees_heartbeats(workers: Fleet, redis_url: str) -> None:
    """Flower knows by them that a worker lives."""
    client = redis.Redis.from_url(redis_url)
    workers.start(1, "threads", 8, "--task-events")

    wait_for(lambda: heard(client, HEARTBEATS, 2))

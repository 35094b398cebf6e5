"""How long results stay in Redis: they are most of what a busy fleet keeps there."""

import redis

from tests.support.fleet import Fleet

RESULTS = "celery-task-meta-*"
ASK = """
from tasks import complete
result = complete.delay("coder", "hi")
result.get(timeout=180)
"""


def test_results_are_kept_for_as_long_as_workers_are_told(workers: Fleet, redis_url: str) -> None:
    """By Celery's own way, as docs/scale.md shows it: behind all other words."""
    client = redis.Redis.from_url(redis_url)
    workers.start(1, "threads", 8, "--", "result.expires=600")

    workers.run(ASK)

    (result,) = client.keys(RESULTS)
    assert 500 < client.ttl(result) <= 600


def test_who_has_read_a_result_can_forget_it(workers: Fleet, redis_url: str) -> None:
    """Then nothing of its task is left."""
    client = redis.Redis.from_url(redis_url)
    workers.start()

    workers.run(ASK + "result.forget()")

    assert client.keys(RESULTS) == []

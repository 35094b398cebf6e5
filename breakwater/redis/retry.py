"""Repeat steps that may be done twice, while Redis is away."""

import time
from collections.abc import Callable
from typing import TypeVar

from celery.exceptions import TimeoutError as NotThere
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.redis.connection import is_transient

MAX_DOWN_S = 60.0
"""How long a task that has not called yet waits for Redis with a worker's slot in its hands."""
FOREVER = float("inf")
PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

T = TypeVar("T")


def retry_while_redis_is_down(step: Callable[[], T], within_s: float = MAX_DOWN_S) -> T:
    """
    Do a step that can be repeated, for as long as Redis is away.

    Raises:
        RedisError: Redis was away for that long.
    """
    ends_at, pause_s = time.monotonic() + within_s, PAUSE_S
    while True:
        try:
            return step()
        except RedisError as error:
            if not is_transient(error) or time.monotonic() + pause_s > ends_at:
                raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def retry_celery_step(step: Callable[[], T], within_s: float) -> T:
    """
    Do a step of Celery's that can be repeated, for as long as Redis is away.

    What Celery waits for in vain is waited for again, for a minute.

    Raises:
        RedisError, OperationalError, TimeoutError: Redis was away for that long, or says no.
    """
    began_at, pause_s = time.monotonic(), PAUSE_S
    while True:
        try:
            return step()
        except (RedisError, OperationalError, NotThere) as error:
            cause = error if isinstance(error, RedisError) else error.__cause__
            says_no = isinstance(cause, RedisError) and not is_transient(cause)
            passed_s = time.monotonic() - began_at + pause_s
            longest_s = min(within_s, MAX_DOWN_S) if isinstance(error, NotThere) else within_s
            if says_no or passed_s > longest_s:
                raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

"""Retry idempotent Redis steps while Redis is unavailable."""

import time
from collections.abc import Callable
from typing import TypeVar

from celery.exceptions import TimeoutError as NotThere
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.redis.connection import cause_of, is_transient

MAX_DOWN_S = 60.0
"""The time for which a task that has not called a provider holds a worker's slot and retries."""
FOREVER = float("inf")
PAUSE_S = 0.05
MAX_PAUSE_S = 1.0

T = TypeVar("T")


def retry_while_redis_is_down(step: Callable[[], T], within_s: float = MAX_DOWN_S) -> T:
    """
    Run an idempotent step; retry it while Redis is unavailable.

    Raises:
        RedisError: Redis was unavailable for `within_s`, or the error is not transient.
    """
    ends_at, pause_s = time.monotonic() + within_s, PAUSE_S
    while True:
        try:
            return step()
        except RedisError as error:
            if not is_transient(error) or time.monotonic() + pause_s > ends_at:
                raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)


def retry_celery_step(step: Callable[[], T], within_s: float) -> T:
    """
    Run an idempotent step of Celery; retry it while Redis is unavailable.

    A timeout of Celery is retried for a minute at most.

    Raises:
        RedisError, OperationalError, TimeoutError: Redis was unavailable for `within_s`, or the
            error is not transient.
    """
    began_at, pause_s = time.monotonic(), PAUSE_S
    while True:
        try:
            return step()
        except (RedisError, OperationalError, NotThere) as error:
            cause = cause_of(error)
            is_final = isinstance(cause, RedisError) and not is_transient(cause)
            limit_s = within_s
            if isinstance(error, NotThere):
                limit_s = min(within_s, MAX_DOWN_S)
            if is_final or time.monotonic() - began_at + pause_s > limit_s:
                raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)

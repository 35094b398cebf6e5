"""How what can be repeated is done while Redis is away."""

import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import RedisError

from tasks.connection import heals

PATIENCE_S = 60.0
"""How long a task that has not called yet waits for Redis with a worker's slot in its hands."""
PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

T = TypeVar("T")


def patiently(step: Callable[[], T], within_s: float = PATIENCE_S) -> T:
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
            if not heals(error) or time.monotonic() + pause_s > ends_at:
                raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

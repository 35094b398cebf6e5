"""
Keys of ours that belong to another program: the worker names them in its log, and may take nothing.

Without `taken` or `delayed` no message can be held or scheduled: each try would fail, or lose a
message. Other foreign keys are only logged, and what they stand for does not work: an operator's
setting that cannot be read is not set.
"""

import time
from collections.abc import Callable, Iterable

import redis
import structlog
from redis.exceptions import RedisError

from breakwater.redis.connection import explain
from breakwater.redis.foreign_keys import STEP, foreign

CHECK_INTERVAL_S, RECHECK_INTERVAL_S = 30.0, 2.0
LOG_INTERVAL_S = 60.0

_log = structlog.get_logger("breakwater")


class ForeignKeyCheck:
    """
    Finds out whether this worker takes nothing because of foreign keys.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_at = self._logged_at = float("-inf")
        self._logged = ""
        self.is_on = False

    @property
    def is_due(self) -> bool:
        """Whether it is time to check again."""
        return self._clock() >= self._due_at

    def refused(self, error: RedisError) -> None:
        """Record that Redis refused a step although it is available; log that once a minute."""
        self._due_at = float("-inf")
        why, step = explain(error)
        if self._is_news(why):
            _log.error("redis.refused", why=why, next=step)

    def look(self, client: redis.Redis, queues: Iterable[str]) -> None:
        """
        Check for foreign keys.

        Raises:
            RedisError: Redis is unavailable.
        """
        keys = foreign(client, queues)
        self.is_on = any(key.stops for key in keys)
        if not keys:
            self._due_at = self._clock() + CHECK_INTERVAL_S
            return
        self._due_at = self._clock() + RECHECK_INTERVAL_S
        names = "; ".join(map(str, keys))
        effect = "prompts are served"
        if self.is_on:
            effect = "this worker takes no prompts"
        if self._is_news(names):
            _log.error("redis.foreign_key", keys=names, what=effect, next=STEP)

    def _is_news(self, text: str) -> bool:
        """Return whether to log a text: it is a new one, or a minute has passed."""
        now = self._clock()
        if text == self._logged and now - self._logged_at < LOG_INTERVAL_S:
            return False
        self._logged, self._logged_at = text, now
        return True

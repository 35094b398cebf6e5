"""
What a worker does about keys of ours that another program has taken: name them, and take nothing.

Without `taken` or `delayed` no message can be held or put away: every try would fail, or lose one.
Other keys are named and cost what they stand for: a lever that cannot be read is not set.
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
    Whether this worker takes nothing because of foreign keys.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = self._said_at = float("-inf")
        self._said: object = None
        self.is_on = False

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        return self._clock() >= self._due

    def refused(self, error: RedisError) -> None:
        """Note that Redis has refused a step, and not for being away; log it, once a minute."""
        self._due = float("-inf")
        what, step = explain(error)
        self._say(what, lambda: _log.error("redis.refused", why=what, next=step))

    def look(self, client: redis.Redis, queues: Iterable[str]) -> None:
        """
        Look for foreign keys.

        Raises:
            RedisError: Redis does not answer.
        """
        found = foreign(client, queues)
        self.is_on = any(each.stops for each in found)
        self._due = self._clock() + (RECHECK_INTERVAL_S if found else CHECK_INTERVAL_S)
        if found:
            what = "; ".join(map(str, found))
            does = "this worker takes no prompts" if self.is_on else "prompts are served"
            self._say(
                what, lambda: _log.error("redis.foreign_key", keys=what, what=does, next=STEP)
            )

    def _say(self, what: str, say: Callable[[], object]) -> None:
        now = self._clock()
        if what == self._said and now - self._said_at < LOG_INTERVAL_S:
            return
        self._said, self._said_at = what, now
        say()

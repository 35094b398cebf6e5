"""
What this process hears of breakers that other processes change.

Every script that writes a breaker's hash publishes its name. That is all a listener needs: what it
knew of that breaker is out of date, and the next call asks. A message that is lost, late, or of
another database's breaker of that name costs a question, never a wrong answer.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import redis
import structlog
from redis.exceptions import ConnectionError as Away
from redis.exceptions import RedisError

from breaker import threads

CHANNEL = "breaker:changes"
PING_S = 5.0
"""A connection that says nothing for this long is asked whether it lives; twice this, and it does
not."""
RETRY_S = 1.0

log = structlog.get_logger("breaker")


class Changes:
    """
    Listen, from the first question on, in one daemon thread.

    Args:
        client: Whose connection settings are used.
        clock: Seconds, never stepping back.
    """

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._closed = False
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child, where there is no thread."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._listening_since: float | None = None
        self._heard: dict[str, float] = {}

    def last(self, name: str) -> float | None:
        """
        Tell since when nothing was heard of a breaker, by the clock.

        Returns:
            When the last change was heard, or listening began; None while nobody listens.
        """
        if self._thread is None:
            self._start()
        since = self._listening_since
        return None if since is None else max(since, self._heard.get(name, since))

    def heard(self, name: str) -> bool:
        """Tell whether a change of a breaker was heard of, ever."""
        return name in self._heard

    def close(self) -> None:
        """Listen no more."""
        self._closed = True

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threads.start(self._listen, "breaker-changes")

    def _listen(self) -> None:
        while not self._closed:
            try:
                self._hear_all()
            except (RedisError, OSError):
                pass  # every call asks meanwhile
            except Exception:
                if not self._closed:  # under our feet
                    log.exception("breaker.fault")
            self._listening_since = None
            time.sleep(RETRY_S)

    def _hear_all(self) -> None:
        with self._client.pubsub() as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(CHANNEL)
            spoke_at = self._clock()
            while not self._closed:
                if message := channel.get_message(timeout=PING_S):
                    spoke_at = self._clock()
                    self._hear(message)
                elif self._clock() - spoke_at > 2 * PING_S:
                    raise Away("nothing is heard on the channel of changes")
                else:
                    channel.ping()

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":  # also when redis-py has quietly connected anew
            self._listening_since = self._clock()
        elif message["type"] == "message":
            name = message["data"]
            self._heard[name.decode() if isinstance(name, bytes) else name] = self._clock()

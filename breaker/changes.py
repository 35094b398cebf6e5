"""
Receive the names of breakers that other processes change.

Each script that writes a breaker's hash publishes its name. A listener needs no more: its view of
that breaker is out of date, so the next call asks Redis. A message that is lost, late, or about the
same name in another database costs a question to Redis, never a wrong decision.
"""

import threading
import time
from collections.abc import Callable, Mapping

import redis
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from breaker import threads

CHANNEL = "breaker:changes"
PING_INTERVAL_S = 5.0
"""A connection that is silent for this long is pinged. After twice this it counts as dead."""
RECONNECT_DELAY_S = 1.0

log = structlog.get_logger("breaker")


class ChangeListener:
    """
    Listen in one daemon thread, from the first use on.

    Args:
        client: Its connection settings are used.
        clock: Seconds, never stepping back.
    """

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._closed = False
        self.restart()

    def restart(self) -> None:
        """Start over in a forked child, which has no thread."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._listening_since: float | None = None
        self._changed_at: dict[str, float] = {}

    def last_change_at_s(self, name: str) -> float | None:
        """
        Return the time, by the clock, since which no change of a breaker was received.

        Returns:
            The time of the last change, or of the begin of listening if that is later; None while
            nothing listens.
        """
        if self._thread is None:
            self._start()
        since = self._listening_since
        if since is None:
            return None
        return max(since, self._changed_at.get(name, since))

    def has_changed(self, name: str) -> bool:
        """Return whether any change of a breaker was received."""
        return name in self._changed_at

    def close(self) -> None:
        """Stop listening."""
        self._closed = True

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threads.start(self._listen, "breaker-changes")

    def _listen(self) -> None:
        while not self._closed:
            try:
                self._receive_all()
            except (RedisError, OSError):
                pass  # meanwhile each call asks Redis
            except Exception:
                if not self._closed:  # close() can take the connection away at any moment
                    log.exception("breaker.fault")
            self._listening_since = None
            time.sleep(RECONNECT_DELAY_S)

    def _receive_all(self) -> None:
        with self._client.pubsub() as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(CHANNEL)
            received_at = self._clock()
            while not self._closed:
                if message := channel.get_message(timeout=PING_INTERVAL_S):
                    received_at = self._clock()
                    self._receive(message)
                elif self._clock() - received_at > 2 * PING_INTERVAL_S:
                    raise RedisConnectionError("the channel of changes is silent")
                else:
                    channel.ping()

    def _receive(self, message: Mapping[str, object]) -> None:
        if message["type"] == "subscribe":  # also after redis-py has reconnected by itself
            self._listening_since = self._clock()
        elif message["type"] == "message":
            name = message["data"]
            if isinstance(name, bytes):
                name = name.decode()
            self._changed_at[str(name)] = self._clock()

"""
What Celery publishes through: kombu's Redis transport, with the message and its bell in one step.

A worker consumes through `tasks/delivery/worker_transport.py`, which adds an atomic take.
"""

from collections.abc import Iterable
from typing import Any

import redis
from kombu.transport import redis as stock
from redis.commands.core import Script
from redis.connection import ConnectionPool

from breakwater.messaging.names import PRIORITIES, list_of
from breakwater.messaging.outbox import Letter, put, put_script
from breakwater.messaging.wire_format import open_text, quotes_in
from breakwater.redis import connection, encryption

REPLIES = ".pidbox"
"""How the queues end through which workers answer `inspect`: no tasks, and nothing to lose."""


class Channel(stock.Channel):  # type: ignore[misc]
    """kombu's channel, but for where Redis is and how it publishes."""

    # kombu's are 0, which is the highest: nothing could overtake a backlog.
    default_priority = None
    priority_steps = PRIORITIES
    _puts: tuple[ConnectionPool, Script] | None = None

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        """Publish a message, and ring for it; replies and queues that expire are kombu's own."""
        if kwargs.get("_publish_batch") or queue in self._expires or queue.endswith(REPLIES):
            message["properties"].pop("priority", None)  # the reader knows but the queue's own list
            sealed = message if queue.endswith(REPLIES) else encryption.seal_message(message)
            super()._put(queue, sealed, **kwargs)
            return
        self.put([self.letter(queue, message)])

    def _q_for_pri(self, queue: str, pri: int | None) -> str:
        """Return the list for a priority."""
        return list_of(queue, pri)

    def prepare_message(
        self, body: Any, priority: int | None = None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Build a message as kombu does, which takes a priority of 0 for none."""
        message: dict[str, Any] = super().prepare_message(body, priority, *args, **kwargs)
        if priority is not None:
            message["properties"]["priority"] = priority
        elif message["properties"]["priority"] is None:
            del message["properties"]["priority"]
        return message

    def encode_body(self, body: Any, encoding: str | None = None) -> tuple[Any, str | None]:
        """Leave a body of JSON as it is, unless base64 is shorter than its quotes escaped."""
        if isinstance(body, str) and body.isascii() and 3 * quotes_in(body) < len(body):
            return body, "utf-8"
        encoded: tuple[Any, str | None] = super().encode_body(body, encoding)
        return encoded

    def letter(self, queue: str, message: Any) -> Letter:
        """Write a message as it will lie in its list, encrypted if there are keys."""
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        text = open_text(encryption.seal_message(message))
        return Letter.of(queue, key, text, message.get("headers") or {})

    def put(self, letters: Iterable[Letter]) -> None:
        """Put messages into their lists, in one step."""
        if self._puts is None or self._puts[0] is not self.pool:
            # Kept: kombu builds a client for every message, which costs more than to send it.
            self._puts = self.pool, put_script(redis.Redis(connection_pool=self.pool))
        put(self._puts[1], letters)

    def _get_pool(self, asynchronous: bool = False) -> ConnectionPool:
        """Build the pool of what waits for messages (asynchronous), or of all else."""
        where, kind = connection.address(), dict[str, Any]()
        prefix: str = stock.Channel.keyprefix_fanout
        self.keyprefix_fanout = prefix.format(db=where.db)
        if asynchronous:
            kind["connection_class"] = _watched(where.connection_class, self)
        pool = where.pool(
            max_connections=connection.MAX_CONNECTIONS,
            socket_timeout=self.socket_timeout,
            socket_connect_timeout=self.socket_connect_timeout,
            health_check_interval=self.health_check_interval,
            **kind,
        )
        if asynchronous:  # kombu closes them
            self._async_sentinel_manager = getattr(pool, "sentinel_manager", None)
        else:
            self._sentinel_manager = getattr(pool, "sentinel_manager", None)
        return pool

    def _subscribe(self) -> None:
        """
        Subscribe to the channels of all workers, each by its name where it has one.

        kombu subscribes to every name as if it were a pattern, and Redis compares a pattern with
        those of a user's ACL to the letter: `&team-a:*` would not let it through.
        """
        topics = self._topics(self.active_fanout_queues)
        if not topics:
            return
        listener = self.subclient
        if listener.connection._sock is None:
            listener.connection.connect()
        self._in_listen = listener.connection
        names, patterns = _names_and_patterns(topics)
        if names:
            listener.subscribe(*names)
        if patterns:
            listener.psubscribe(*patterns)

    def _unsubscribe_from(self, queue: str) -> None:
        listener = self.subclient
        if listener.connection and listener.connection._sock:
            names, patterns = _names_and_patterns(self._topics([queue]))
            if names:
                listener.unsubscribe(*names)
            if patterns:
                listener.punsubscribe(*patterns)

    def _topics(self, queues: Iterable[str]) -> list[str]:
        return [topic for queue in queues for topic in self._get_subscribe_topics(queue)]


class Transport(stock.Transport):  # type: ignore[misc]
    """kombu's Redis transport over our channel."""

    Channel = Channel
    can_parse_url = True  # else kombu takes the URL apart, to no purpose

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return what is shown of REDIS_URL; there is no password in it."""
        return connection.shown()


def _names_and_patterns(topics: Iterable[str]) -> tuple[list[str], list[str]]:
    found: tuple[list[str], list[str]] = [], []
    for topic in topics:
        found[any(sign in topic for sign in "*?[")].append(topic)
    return found


def _watched(kind: type, channel: Channel) -> type:
    """Make of a class of connections one that tells the channel's poller when it disconnects."""

    class Watched(kind):  # type: ignore[misc]
        def disconnect(self, *args: Any, **kwargs: Any) -> None:
            super().disconnect(*args, **kwargs)
            if channel._registered:
                channel._on_connection_disconnect(self)

    return Watched

"""
The transport that Celery publishes through: kombu's for Redis, with message and wakeup in one step.

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

Untyped = Any
"""A value of kombu, which has no types."""

REPLIES = ".pidbox"
"""Suffix of the reply queues used by `inspect`; they carry no tasks."""


class Channel(stock.Channel):  # type: ignore[misc]
    """kombu's channel, with our connection to Redis and our way to publish."""

    # kombu's default is 0, the highest: then nothing could overtake a backlog.
    default_priority = None
    priority_steps = PRIORITIES
    _puts: tuple[ConnectionPool, Script] | None = None

    def _put(self, queue: str, message: Untyped, **kwargs: Untyped) -> None:
        """
        Publish a message and wake a worker; kombu publishes replies, and to queues that expire.
        """
        if kwargs.get("_publish_batch") or queue in self._expires or queue.endswith(REPLIES):
            # The reader reads only the queue's own list.
            message["properties"].pop("priority", None)
            if not queue.endswith(REPLIES):
                message = encryption.seal_message(message)
            super()._put(queue, message, **kwargs)
            return
        self.put([self.letter(queue, message)])

    def _q_for_pri(self, queue: str, pri: int | None) -> str:
        """Return the list for a priority."""
        return list_of(queue, pri)

    def prepare_message(
        self, body: Untyped, priority: int | None = None, *args: Untyped, **kwargs: Untyped
    ) -> dict[str, Untyped]:
        """Build a message as kombu does, but keep a priority of 0, which kombu ignores."""
        message: dict[str, Untyped] = super().prepare_message(body, priority, *args, **kwargs)
        if priority is not None:
            message["properties"]["priority"] = priority
        elif message["properties"]["priority"] is None:
            del message["properties"]["priority"]
        return message

    def encode_body(self, body: Untyped, encoding: str | None = None) -> tuple[Untyped, str | None]:
        """Keep a JSON body as text, unless base64 is shorter than the text with escaped quotes."""
        if isinstance(body, str) and body.isascii() and 3 * quotes_in(body) < len(body):
            return body, "utf-8"
        encoded: tuple[Untyped, str | None] = super().encode_body(body, encoding)
        return encoded

    def letter(self, queue: str, message: Untyped) -> Letter:
        """Return a message as its list will hold it, encrypted if there are keys."""
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        text = open_text(encryption.seal_message(message))
        return Letter.of(queue, key, text, message.get("headers") or {})

    def put(self, letters: Iterable[Letter]) -> None:
        """Put messages into their lists in one step."""
        if self._puts is None or self._puts[0] is not self.pool:
            # Cached: kombu builds a client per message, which costs more than sending it.
            self._puts = self.pool, put_script(redis.Redis(connection_pool=self.pool))
        put(self._puts[1], letters)

    def _get_pool(self, asynchronous: bool = False) -> ConnectionPool:
        """
        Build the pool of connections that wait for messages (asynchronous), or that of the others.
        """
        where, kind = connection.address(), dict[str, Untyped]()
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
        Subscribe to the channels of all workers: to names as names, to patterns as patterns.

        kombu subscribes to every name as a pattern. Redis compares a pattern literally with those
        of a user's ACL, so a user with `&team-a:*` would be refused.
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
    can_parse_url = True  # else kombu parses the URL, which nothing uses

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return REDIS_URL without its password."""
        return connection.shown()


def _names_and_patterns(topics: Iterable[str]) -> tuple[list[str], list[str]]:
    names: list[str] = []
    patterns: list[str] = []
    for topic in topics:
        is_pattern = any(sign in topic for sign in "*?[")
        (patterns if is_pattern else names).append(topic)
    return names, patterns


def _watched(kind: type, channel: Channel) -> type:
    """Subclass a connection so that it notifies the channel's poller when it disconnects."""

    class Watched(kind):  # type: ignore[misc]
        def disconnect(self, *args: Untyped, **kwargs: Untyped) -> None:
            super().disconnect(*args, **kwargs)
            if channel._registered:
                channel._on_connection_disconnect(self)

    return Watched

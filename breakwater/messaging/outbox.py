"""
Put messages into their queues: a single one, or many in one round trip.

Celery publishes one message at a time. Each costs a round trip, and more work than building it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import redis
from redis.commands.core import Script

from breakwater.errors import InvalidOption
from breakwater.messaging.keys import wakeup_key
from breakwater.redis.text import to_text

Untyped = Any
"""A value of kombu, which has no types."""

MAX_WAKEUPS = 8
"""The most entries of a wakeup list, each for one idle worker; as in `scripts/delivery.lua`."""
MAX_MESSAGES, MAX_BYTES = 500, 1024 * 1024
"""An outbox is full after this many messages or bytes; a larger message is sent by itself."""

PUBLISH_OPTIONS = ("retry", "retry_policy", "declare", "timeout", "confirm_timeout")
"""Options by which Celery tells kombu how to send a single message."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as its list will hold it."""

    queue: str
    key: str
    """The list: the queue's own, or that of one of its priorities."""
    text: str
    """The text up to the time at which Redis stores it, as `wire_format.py` writes it."""
    asked: tuple[str, str] | None = None
    """The task id that the caller has chosen, and the digests of the call."""

    @classmethod
    def of(cls, queue: str, key: str, text: str, headers: Mapping[str, Untyped]) -> "Letter":
        """Build one; its headers may hold the digests of the call."""
        own = headers.get("breakwater")
        if isinstance(own, Mapping) and own.get("asked"):
            return cls(queue, key, text, (headers["id"], own["asked"]))
        return cls(queue, key, text)


def put_script(client: redis.Redis) -> Script:
    """Return the script that puts messages into their lists."""
    return client.register_script(
        (files("breakwater.messaging") / "scripts" / "put.lua").read_text(encoding="utf-8")
    )


def put(script: Script, letters: Iterable[Letter]) -> None:
    """
    Put all messages into their lists, or none; each list keeps their order.

    Raises:
        InvalidOption: A message has the id of a task with another call.
    """
    letters = list(letters)
    lists: dict[tuple[str, str], list[str]] = {}
    for letter in letters:
        lists.setdefault((letter.key, letter.queue), []).append(letter.text)
    keys = [name for key, queue in lists for name in (key, wakeup_key(queue))]
    words: list[str] = [word for texts in lists.values() for word in (str(len(texts)), *texts)]
    asked = [word for letter in letters for word in letter.asked or ()]
    if refused := script(keys=keys, args=[MAX_WAKEUPS, len(asked), *asked, *words]):
        task_id = to_text(refused)
        raise InvalidOption(
            f"task_id {task_id!r} was enqueued before with another prompt, role or option; "
            f"choose a new id, or enqueue the same again",
            {"task_id": task_id},
        )


class Outbox:
    """
    A buffer through which Celery publishes many tasks; `flush` sends them.

    Args:
        producer: kombu's producer, over one of our channels.
        retry_policy: kombu's policy, for connecting and for writing.
    """

    def __init__(self, producer: Untyped, retry_policy: Mapping[str, Untyped]) -> None:
        self._producer = producer
        # As in kombu's own `publish`; without it, the first access to its channel never gives up.
        producer.connection.transport_options.update(retry_policy)
        self._put = producer.connection.ensure(producer, self._put_once, **retry_policy)
        self._letters: list[Letter] = []
        self._bytes = 0

    def __len__(self) -> int:
        """Return the number of buffered messages."""
        return len(self._letters)

    @property
    def full(self) -> bool:
        """Whether it holds as much as one round trip should send."""
        return len(self._letters) >= MAX_MESSAGES or self._bytes >= MAX_BYTES

    def publish(
        self,
        body: Untyped,
        *,
        exchange: str,
        routing_key: str,
        headers: dict[str, Untyped],
        expiration: float | None = None,
        **properties: Untyped,
    ) -> None:
        """Buffer a message, encoded exactly as kombu would."""
        for name in PUBLISH_OPTIONS:
            properties.pop(name, None)
        text, kind, encoding = self._producer._prepare(
            body,
            properties.pop("serializer"),
            compression=properties.pop("compression"),
            headers=headers,
        )
        if expiration is not None:
            properties["expiration"] = str(int(expiration * 1000))
        channel, priority = self._producer.channel, properties.pop("priority", None)
        message = channel.prepare_message(text, priority, kind, encoding, headers, properties)
        channel._inplace_augment_message(message, exchange, routing_key)
        letter = channel.letter(routing_key, message)
        self._letters.append(letter)
        self._bytes += len(letter.text)

    def flush(self) -> None:
        """
        Write all buffered messages to Redis in one step.

        Raises:
            kombu.exceptions.OperationalError: Redis is unavailable; it has all messages, or none.
            redis.RedisError: Redis refused; it has none of them.
        """
        if self._letters:
            self._put()
        self._letters, self._bytes = [], 0

    def _put_once(self) -> None:
        self._producer.channel.put(self._letters)

"""
Where messages are put into their queues: one alone, or many in one round trip.

Celery publishes one message at a time, and each costs a round trip and more work than its writing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import redis
from redis.commands.core import Script

from breakwater.errors import InvalidOption
from breakwater.messaging.keys import wakeup_key

RINGS = 8
"""Entries a bell holds at most, each for one idle worker; as in `scripts/delivery.lua`."""
MOST, MOST_BYTES = 500, 1024 * 1024
"""Messages, and their bytes, after which an outbox is full; a larger one goes out by itself."""

OF_ONE_ALONE = ("retry", "retry_policy", "declare", "timeout", "confirm_timeout")
"""What Celery tells kombu of the sending of one message."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it will lie in its list."""

    queue: str
    key: str
    """Its list: the queue's own, or one of its priorities'."""
    text: str
    """Up to the time at which Redis stores it, as `wire_format.py` writes it."""
    asked: tuple[str, str] | None = None
    """The id that its caller has chosen, and the digests of what is asked."""

    @classmethod
    def of(cls, queue: str, key: str, text: str, headers: Mapping[str, Any]) -> "Letter":
        """Build one; its headers say what is asked under which id."""
        own = headers.get("breakwater")
        asked = own.get("asked") if isinstance(own, Mapping) else None
        return cls(queue, key, text, (headers["id"], asked) if asked else None)


def put_script(client: redis.Redis) -> Script:
    """Return the script that puts messages, for a client."""
    return client.register_script(
        (files("breakwater.messaging") / "scripts" / "put.lua").read_text(encoding="utf-8")
    )


def put(script: Script, letters: Iterable[Letter]) -> None:
    """
    Put all of them, or none; each list gets its own in their order.

    Raises:
        InvalidOption: One has the id of a task that asked something else.
    """
    letters = list(letters)
    lists: dict[tuple[str, str], list[str]] = {}
    for letter in letters:
        lists.setdefault((letter.key, letter.queue), []).append(letter.text)
    keys = [name for key, queue in lists for name in (key, wakeup_key(queue))]
    words: list[str] = [word for texts in lists.values() for word in (str(len(texts)), *texts)]
    asked = [word for letter in letters for word in letter.asked or ()]
    if refused := script(keys=keys, args=[RINGS, len(asked), *asked, *words]):
        task_id = refused.decode() if isinstance(refused, bytes) else str(refused)
        raise InvalidOption(
            f"task_id {task_id!r} was enqueued before with another prompt, role or option; "
            f"choose a new id, or enqueue the same again",
            {"task_id": task_id},
        )


class Outbox:
    """
    What Celery publishes through when many tasks go out together: it keeps them till `flush`.

    Args:
        producer: kombu's, over a channel of ours.
        retry_policy: kombu's, for connecting and for writing.
    """

    def __init__(self, producer: Any, retry_policy: Mapping[str, Any]) -> None:
        self._producer = producer
        # As kombu's own `publish` has it; without, the first look at its channel never gives up.
        producer.connection.transport_options.update(retry_policy)
        self._put = producer.connection.ensure(producer, self._put_once, **retry_policy)
        self._letters: list[Letter] = []
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many it holds."""
        return len(self._letters)

    @property
    def full(self) -> bool:
        """Whether it holds as much as one round trip should carry."""
        return len(self._letters) >= MOST or self._bytes >= MOST_BYTES

    def publish(
        self,
        body: Any,
        *,
        exchange: str,
        routing_key: str,
        headers: dict[str, Any],
        expiration: float | None = None,
        **given: Any,
    ) -> None:
        """Take a message, and make of it what kombu's producer and channel make."""
        given = {name: value for name, value in given.items() if name not in OF_ONE_ALONE}
        text, kind, encoding = self._producer._prepare(
            body, given.pop("serializer"), compression=given.pop("compression"), headers=headers
        )
        if expiration is not None:
            given["expiration"] = str(int(expiration * 1000))
        channel, priority = self._producer.channel, given.pop("priority", None)
        message = channel.prepare_message(text, priority, kind, encoding, headers, given)
        channel._inplace_augment_message(message, exchange, routing_key)
        letter = channel.letter(routing_key, message)
        self._letters.append(letter)
        self._bytes += len(letter.text)

    def flush(self) -> None:
        """
        Put all that it holds into Redis, in one step.

        Raises:
            kombu.exceptions.OperationalError: Redis is away; all of it is there, or nothing.
            redis.RedisError: Redis refused; nothing of it is there.
        """
        if self._letters:
            self._put()
        self._letters, self._bytes = [], 0

    def _put_once(self) -> None:
        self._producer.channel.put(self._letters)

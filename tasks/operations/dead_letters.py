"""
Dead letters: tasks that have failed for good, kept with their whole history.

A message that no worker can read becomes a dead letter too. An operator retries or drops a letter;
workers delete letters older than 30 days, with their messages. The keys are explained at the head
of `breakwater/messaging/scripts/delivery.lua`. Every `RedisError` is raised as it is.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import redis

from breakwater.attempt import Attempt, read_attempts
from breakwater.calls.call import bind_arguments
from breakwater.errors import BadTask, ConfigError, InvalidMessage
from breakwater.messaging.keys import DEAD_LETTERS, DEAD_MESSAGES
from breakwater.redis.encryption import opened
from breakwater.redis.text import to_text
from tasks.delivery import envelope

PAGE_SIZE = 200
"""Letters read at a time; one may have a hundred attempts."""

Entries = list[tuple[bytes, dict[bytes, bytes]]]
"""Entries of a stream: their ids and their fields."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter."""

    id: str
    """The id of its stream entry, which contains the time."""
    task_id: str
    """Empty if the message names no task."""
    at_ms: int
    role: str
    queue: str
    error: str
    message: str
    """The message of the error; it does not contain the prompt."""
    attempts: list[Attempt]
    """All attempts, including those before it was retried as a dead letter."""
    options: dict[str, object]
    """The task's params, metadata and deadline_s; empty if no key here decrypts them."""

    @property
    def name(self) -> str:
        """The name that operators use: the id of its task, or else its own id."""
        return self.task_id or self.id


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Selects letters that meet all conditions."""

    role: str | None = None
    error: str | None = None
    names: frozenset[str] = frozenset()
    """Ids of tasks or of letters; empty: all."""
    older_than_s: float = 0.0
    newer_than_s: float | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether a letter meets the conditions; its age is checked when it is read."""
        return (
            self.role in (None, letter.role)
            and self.error in (None, letter.error)
            and (not self.names or not self.names.isdisjoint((letter.task_id, letter.id)))
        )


ALL = LetterFilter()


class DeadLetters:
    """
    Read the dead letters; `tasks.operations.operator` retries and drops them.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def find(self, wanted: LetterFilter = ALL, *, before: str = "") -> Iterator[DeadLetter]:
        """
        Read the letters, newest first.

        Args:
            before: A letter's own id: only older letters are read, to continue after a page.
        """
        now_ms = self._now_ms()
        newest = str(now_ms - round(wanted.older_than_s * 1000))
        if before:
            newest = f"({before}"
        oldest = "-"
        if wanted.newer_than_s is not None:
            oldest = str(now_ms - round(wanted.newer_than_s * 1000))
        while page := self._page(newest, oldest):
            for letter in page:
                if wanted.matches(letter):
                    yield letter
            newest = f"({page[-1].id}"

    def get(self, name: str) -> DeadLetter | None:
        """Return the newest letter of a task, or the letter with this id; None if none exists."""
        return next(self.find(LetterFilter(names=frozenset({name}))), None)

    def prompt(self, letter: DeadLetter) -> Any:
        """
        Read the prompt from the letter's message.

        Returns:
            The argument of `complete`: a string, or a list of messages.

        Raises:
            ValueError: The message does not exist, or no prompt can be read from it.
        """
        entry = cast("bytes | None", self._client.hget(DEAD_MESSAGES, letter.id))
        if entry is None:
            raise ValueError(f"the message of {letter.name} no longer exists")
        try:
            payload = json.loads(entry.partition(b"\n")[2])
            args, kwargs, *_ = json.loads(envelope.body_of(payload))
            return bind_arguments(args, kwargs)[1]
        except InvalidMessage as fault:
            why = f"no prompt can be read from the message of {letter.name}: {fault}"
            raise ValueError(why) from None
        except (BadTask, KeyError, TypeError, ValueError, RecursionError):
            raise ValueError(f"the message of {letter.name} contains no prompt") from None

    def _page(self, newest: str, oldest: str) -> list[DeadLetter]:
        entries = cast("Entries", self._client.xrevrange(DEAD_LETTERS, newest, oldest, PAGE_SIZE))
        return [_letter(to_text(id_), fields) for id_, fields in entries]

    def _now_ms(self) -> int:
        seconds, microseconds = self._client.time()
        return seconds * 1000 + microseconds // 1000


def _letter(id_: str, entry: Mapping[bytes, bytes]) -> DeadLetter:
    fields = {to_text(name): to_text(value) for name, value in entry.items()}
    return DeadLetter(
        id=id_,
        task_id=fields.get("task_id", ""),
        at_ms=int(fields["at_ms"]),
        role=fields.get("role", ""),
        queue=fields.get("queue", ""),
        error=fields.get("error", ""),
        message=fields.get("message", ""),
        attempts=read_attempts(json.loads(fields.get("attempts", "[]"))),
        options=_options(fields.get("options", "{}")),
    )


def _options(text: str) -> dict[str, object]:
    options: dict[str, object] = {}
    with suppress(ConfigError):
        options = json.loads(opened(text))
    return options

"""
Dead letters: what is past help, kept with its whole history until somebody decides.

A task that failed for good, and a message of which nobody could make a task. The keys are
explained at the head of `delivery/scripts/delivery.lua`; letters older than 30 days are removed by
the workers, with their messages. Every `RedisError` comes out as it is.
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
from breakwater.redis.encryption import opened
from breakwater.redis.text import to_text
from tasks.delivery import envelope

LETTERS = "dead"
MESSAGES = "dead:messages"
PAGE = 200
"""Letters read at a time; one may hold a hundred attempts."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One of them; `id` is its own and tells its time, `task_id` is empty if it has no task."""

    id: str
    task_id: str
    at_ms: int
    role: str
    queue: str
    error: str
    message: str
    """The error's, not the prompt."""
    attempts: list[Attempt]
    """Of all its lives."""
    options: dict[str, Any]
    """The call's: params, metadata, deadline_s; empty if no key here opens them."""

    @property
    def name(self) -> str:
        """What an operator calls it by: its task's id, or its own."""
        return self.task_id or self.id


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters; each condition narrows it."""

    role: str | None = None
    error: str | None = None
    names: frozenset[str] = frozenset()
    """Ids of tasks or of letters; empty for all."""
    older_than_s: float = 0.0
    newer_than_s: float | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Tell whether a letter of the right age is wanted."""
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
        Walk through the letters, newest first.

        Args:
            before: A letter's own id; only older ones. This is how a page follows another.
        """
        now_ms = self._now_ms()
        newest = f"({before}" if before else str(now_ms - round(wanted.older_than_s * 1000))
        oldest = "-"
        if wanted.newer_than_s is not None:
            oldest = str(now_ms - round(wanted.newer_than_s * 1000))
        while page := self._page(newest, oldest):
            for letter in page:
                if wanted.matches(letter):
                    yield letter
            newest = f"({page[-1].id}"

    def get(self, name: str) -> DeadLetter | None:
        """Return the newest letter of a task, or the letter of this id; None if there is none."""
        return next(self.find(LetterFilter(names=frozenset({name}))), None)

    def prompt(self, letter: DeadLetter) -> Any:
        """
        Read the prompt from the letter's message.

        Returns:
            What was handed to `complete`: a string, or a list of messages.

        Raises:
            ValueError: The message is not there, or there is no prompt to be read in it.
        """
        entry = cast("bytes | None", self._client.hget(MESSAGES, letter.id))
        if entry is None:
            raise ValueError(f"the message of {letter.name} is not there")
        try:
            payload = json.loads(entry.partition(b"\n")[2])
            args, kwargs, *_ = json.loads(envelope.body_of(payload))
            return bind_arguments(args, kwargs)[1]
        except InvalidMessage as fault:
            why = f"the message of {letter.name} holds no prompt that can be read: {fault}"
            raise ValueError(why) from None
        except (BadTask, KeyError, TypeError, ValueError, RecursionError):
            raise ValueError(f"the message of {letter.name} holds no prompt") from None

    def _page(self, newest: str, oldest: str) -> list[DeadLetter]:
        entries = cast("list[Any]", self._client.xrevrange(LETTERS, newest, oldest, PAGE))
        return [_letter(to_text(id_), fields) for id_, fields in entries]

    def _now_ms(self) -> int:
        seconds, microseconds = self._client.time()
        return seconds * 1000 + microseconds // 1000


def _letter(id_: str, fields: Mapping[Any, Any]) -> DeadLetter:
    told = {to_text(name): to_text(value) for name, value in fields.items()}
    return DeadLetter(
        id=id_,
        task_id=told.get("task_id", ""),
        at_ms=int(told["at_ms"]),
        role=told.get("role", ""),
        queue=told.get("queue", ""),
        error=told.get("error", ""),
        message=told.get("message", ""),
        attempts=read_attempts(json.loads(told.get("attempts", "[]"))),
        options=_options(told.get("options", "{}")),
    )


def _options(text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    with suppress(ConfigError):
        options = json.loads(opened(text))
    return options

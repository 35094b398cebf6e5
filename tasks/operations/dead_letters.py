"""
Dead letters: what is past help, kept with its whole history until somebody decides.

A task that failed for good, and a message of which nobody could make a task. The keys are
explained at the head of `delivery/scripts/delivery.lua`; letters older than 30 days are removed by
the workers, with their messages. Every `RedisError` comes out as it is.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, cast

import redis

from breakwater.attempt import RETRIED, Attempt
from breakwater.calls.call import bind
from breakwater.config import role_names
from breakwater.errors import BadTask, ConfigError, InvalidMessage
from breakwater.messaging.journal import act, new_command
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.redis.encryption import opened
from tasks.delivery import envelope
from tasks.delivery.store import Store

LETTERS = "dead"
MESSAGES = "dead:messages"
PAGE = 200
"""Letters read at a time; one may hold a hundred attempts."""
Retried = Literal["retried", "gone", "lost", "answered"]


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
    attempts: list[dict[str, Any]]
    """Of all its lives; shape as in the result."""
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
    Read, retry and drop them; what one of these objects does is one entry of `operations`.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        store = Store(client)
        self._revive, self._drop = store.script("revive"), store.script("drop")
        self._command = new_command()

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
            return bind(args, kwargs)[1]
        except InvalidMessage as fault:
            why = f"the message of {letter.name} holds no prompt that can be read: {fault}"
            raise ValueError(why) from None
        except (BadTask, KeyError, TypeError, ValueError, RecursionError):
            raise ValueError(f"the message of {letter.name} holds no prompt") from None

    def retry(self, letter: DeadLetter) -> Retried:
        """
        Queue a letter's message again, with a new deadline; its attempts go with it.

        Two who do this at once queue it once. A queue of a role that is no more is replaced by
        the common one, which every worker consumes, and where the task learns of its role's end.

        Returns:
            retried; gone (somebody has retried or dropped it), lost (its message is not there), or
            answered (its task has come to another result since): then nothing has changed.
        """
        again = Attempt("", "", "rejected", error=RETRIED, why=f"by hand, after {letter.error}")
        attempts = json.dumps([*letter.attempts, again.as_dict()])
        queue = COMMON_QUEUE if _has_no_role(letter.queue) else ""
        told = self._revive(
            args=[letter.id, queue, attempts, act("dead retry", command=self._command)]
        )
        return cast("Retried", told.decode() if isinstance(told, bytes) else told)

    def drop(self, letters: Iterable[DeadLetter]) -> int:
        """Remove letters and their messages for good; return how many were there still."""
        number = 0
        for ids in _batches(letter.id for letter in letters):
            told = self._drop(args=[act("dead drop", command=self._command), *ids])
            number += cast("int", told)
        return number

    def _page(self, newest: str, oldest: str) -> list[DeadLetter]:
        entries = cast("list[Any]", self._client.xrevrange(LETTERS, newest, oldest, PAGE))
        return [_letter(_text(id_), fields) for id_, fields in entries]

    def _now_ms(self) -> int:
        seconds, microseconds = self._client.time()
        return seconds * 1000 + microseconds // 1000


def _letter(id_: str, fields: Mapping[Any, Any]) -> DeadLetter:
    told = {_text(name): _text(value) for name, value in fields.items()}
    return DeadLetter(
        id=id_,
        task_id=told.get("task_id", ""),
        at_ms=int(told["at_ms"]),
        role=told.get("role", ""),
        queue=told.get("queue", ""),
        error=told.get("error", ""),
        message=told.get("message", ""),
        attempts=json.loads(told.get("attempts", "[]")),
        options=_options(told.get("options", "{}")),
    )


def _options(text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    with suppress(ConfigError):
        options = json.loads(opened(text))
    return options


def _has_no_role(queue: str) -> bool:
    """Tell a queue made for a role that the roles file does not name any more."""
    known = role_names()
    return (
        known is not None
        and queue.startswith(queue_of(""))
        and queue not in {queue_of(role) for role in known}
    )


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for id_ in ids:
        batch.append(id_)
        if len(batch) == PAGE:
            yield batch
            batch = []
    if batch:
        yield batch


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

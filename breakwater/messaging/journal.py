"""
What operators did: who, when, what, to what. The newest 10,000 or so, in the stream `operations`.

Where a script of ours makes the change, it writes the entry in the same step; else the entry is
written first, so that there is no change without one. Every `RedisError` comes out as it is.
"""

import getpass
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from breakwater.messaging.task_store import TaskStore
from breakwater.redis.batches import batches
from breakwater.redis.text import to_text

STREAM = "operations"
PAGE = 500
BATCH_SIZE = 200
"""Targets that a script is given at most, so that none keeps Redis busy for long."""
WHO = "BREAKWATER_WHO"
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Operation:
    """One act; `targets` names the first 20 of the `number` that it changed."""

    id: str
    at_ms: int
    who: str
    what: str
    """Such as pause, resume, drain, dead retry, breaker open."""
    targets: list[str]
    number: int
    details: dict[str, Any] = field(default_factory=dict)


def whoami() -> str:
    """Name the operator: BREAKWATER_WHO, else user@host."""
    if not (name := os.environ.get(WHO, "")):
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user need not have a name
            user = str(os.getuid())
        name = f"{user}@{socket.gethostname()}"
    return _printable(name)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:LONGEST_NAME]


def new_id() -> str:
    """Return a random id for a command or a process."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Command:
    """
    One command of an operator, or one request to a page that several operators use.

    All changes of one kind that a command makes share a journal entry, which grows.
    """

    who: str = field(default_factory=whoami)
    id: str = field(default_factory=new_id)


def journal_entry(
    what: str, details: Mapping[str, object] | None = None, command: Command | None = None
) -> str:
    """
    Build a journal entry as the scripts take it.

    Args:
        command: The command that makes the change; None for one of its own.
    """
    command = command or Command()
    return json.dumps(
        {
            "command": f"{command.id} {what}",
            "who": _printable(command.who),
            "what": what,
            "details": json.dumps(details or {}),
        }
    )


class Operations:
    """
    Write and read them.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def record(
        self,
        what: str,
        targets: Sequence[str],
        details: Mapping[str, object] | None = None,
        command: Command | None = None,
    ) -> None:
        """Write the entry of a change that no script of ours makes, before it is made."""
        write, entry = (
            TaskStore(self._client).script("record"),
            journal_entry(what, details, command),
        )
        for batch in batches(targets, BATCH_SIZE):
            write(args=[entry, *batch])

    def find(self, *, since_s: float | None = None) -> Iterator[Operation]:
        """
        Walk through them, newest first.

        Args:
            since_s: Only those of the last so many seconds; None for all.
        """
        newest, oldest = "+", "-"
        if since_s is not None:
            seconds, microseconds = self._client.time()
            oldest = str(max(0, seconds * 1000 + microseconds // 1000 - round(since_s * 1000)))
        while page := cast("list[Any]", self._client.xrevrange(STREAM, newest, oldest, PAGE)):
            for id_, fields in page:
                yield _operation(to_text(id_), {to_text(k): to_text(v) for k, v in fields.items()})
            newest = f"({to_text(page[-1][0])}"


def _operation(id_: str, told: Mapping[str, str]) -> Operation:
    return Operation(
        id=id_,
        at_ms=int(told["at_ms"]),
        who=told["who"],
        what=told["what"],
        targets=told["targets"].split("\n"),
        number=int(told["number"]),
        details=json.loads(told["details"]),
    )

"""
The journal of operators' changes: who changed what, and when.

The stream `operations` keeps about the newest 10,000 entries. A script that makes a change writes
its entry in the same step. Otherwise the entry is written first, so that no change is without one.
Every `RedisError` is passed on unchanged.
"""

import getpass
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import redis

from breakwater.content import JsonObject
from breakwater.messaging.task_store import TaskStore
from breakwater.redis.batches import batches
from breakwater.redis.text import to_text

STREAM = "operations"
PAGE = 500
BATCH_SIZE = 200
"""The most targets per script call, so that none keeps Redis busy for long."""
WHO = "BREAKWATER_WHO"
MAX_NAME = 100


Entries = list[tuple[bytes, dict[bytes, bytes]]]
"""A page of a stream, as redis-py returns it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry; `targets` lists the first 20 of the `number` objects that the change affected."""

    id: str
    at_ms: int
    who: str
    what: str
    """For example pause, resume, drain, dead retry, breaker open."""
    targets: list[str]
    number: int
    details: JsonObject = field(default_factory=dict)


def whoami() -> str:
    """Return the operator's name: BREAKWATER_WHO, else user@host."""
    if not (name := os.environ.get(WHO, "")):
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user may have no name
            user = str(os.getuid())
        name = f"{user}@{socket.gethostname()}"
    return _printable(name)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:MAX_NAME]


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
        command: The command that makes the change; None: a new one.
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
    Write and read the journal.

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
        """Write the entry of a change that no script makes, before the change is made."""
        write = TaskStore(self._client).script("record")
        entry = journal_entry(what, details, command)
        for batch in batches(targets, BATCH_SIZE):
            write(args=[entry, *batch])

    def find(self, *, since_s: float | None = None) -> Iterator[Operation]:
        """
        Iterate over the entries, newest first.

        Args:
            since_s: Only entries of this many seconds up to now; None: all entries.
        """
        newest, oldest = "+", "-"
        if since_s is not None:
            seconds, microseconds = self._client.time()
            oldest = str(max(0, seconds * 1000 + microseconds // 1000 - round(since_s * 1000)))
        while page := cast("Entries", self._client.xrevrange(STREAM, newest, oldest, PAGE)):
            for id_, fields in page:
                yield _operation(to_text(id_), {to_text(k): to_text(v) for k, v in fields.items()})
            newest = f"({to_text(page[-1][0])}"


def _operation(id_: str, entry: Mapping[str, str]) -> Operation:
    return Operation(
        id=id_,
        at_ms=int(entry["at_ms"]),
        who=entry["who"],
        what=entry["what"],
        targets=entry["targets"].split("\n"),
        number=int(entry["number"]),
        details=json.loads(entry["details"]),
    )

"""
Find a task that has no result yet: it runs, it waits, or its id is unknown.

Enqueueing writes nothing for this purpose. Whoever asks reads the queues in Redis, a limited number
of messages at a time, and never all of a million waiting prompts.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, cast

import redis

from breakwater.config import role_names
from breakwater.errors import ConfigError
from breakwater.messaging.keys import CONSUMED_QUEUES, result_key, task_key
from breakwater.messaging.names import COMMON_QUEUE, PRIORITIES, list_of, queue_of
from breakwater.messaging.task_store import TaskStore
from breakwater.redis.text import to_text

BATCH_SIZE = 500
"""Messages that Redis reads in one step, which takes about a millisecond."""
MAX_MESSAGES = 100_000
"""Messages that are read; a task behind more of them is not found."""

UNKNOWN_COUNT = -1


@dataclass(frozen=True, slots=True)
class OperatorHold:
    """An operator's order: a paused queue, or a worker that drains."""

    who: str
    at_ms: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """A queue that no provider can serve now."""

    until_ms: int
    """When the next trial tasks are admitted; it may be in the past if nothing waits."""
    since_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The place of a task."""

    state: Literal["settled", "running", "waiting", "unknown"]
    how: str = ""
    """How a task waits: `queue`, `delayed`, `shared` (for an equal call) or `taken`."""
    queue: str = ""
    ahead: int | None = None
    """Messages of the same priority that are taken before it; None: unknown."""
    due_ms: int | None = None
    """When it returns to its queue (ms, Redis' clock); None: it is not delayed."""
    paused: OperatorHold | None = None
    parked: Parked | None = None


def find(client: redis.Redis, task_id: str) -> Whereabouts:
    """
    Find a task.

    Raises:
        RedisError: Redis is unavailable.
    """
    script = TaskStore(client).script("where")
    keys = [task_key(task_id), result_key(task_id)]
    lists, first = _lists(client), 1
    while first <= MAX_MESSAGES:
        reply = cast("list[bytes]", script(keys=keys, args=[task_id, first, BATCH_SIZE, *lists]))
        if reply[0] != b"more":
            return _read([to_text(word) for word in reply])
        first = int(reply[1])
    return Whereabouts("unknown")


def _lists(client: redis.Redis) -> list[str]:
    """Return the lists that may hold it: of all consumed queues, and of this process's roles."""
    try:
        roles: Iterable[str] = role_names() or ()
    except ConfigError:
        roles = ()
    consumed = cast("set[bytes]", client.smembers(CONSUMED_QUEUES))
    names = {COMMON_QUEUE, *map(queue_of, roles), *map(to_text, consumed)}
    return [list_of(name, priority) for name in sorted(names) for priority in PRIORITIES]


def _read(reply: list[str]) -> Whereabouts:
    state, *rest = reply
    if state == "running":
        return Whereabouts("running", queue=rest[0])
    if state == "settled":
        return Whereabouts("settled")
    if state != "waiting":
        return Whereabouts("unknown")
    how, queue, count, due, hold, parked = rest
    ahead: int | None = int(count)
    if ahead == UNKNOWN_COUNT:
        ahead = None
    due_ms = None
    if due:
        due_ms = round(float(due))
    return Whereabouts(
        "waiting", how, queue, ahead, due_ms, paused=parse_hold(hold), parked=parse_parked(parked)
    )


def as_dict(where: Whereabouts) -> dict[str, object]:
    """Return the known fields as a JSON object."""
    fields: dict[str, object] = {
        "how": where.how,
        "queue": where.queue,
        "ahead": where.ahead,
        "due_ms": where.due_ms,
        "paused": where.paused and asdict(where.paused),
        "parked": where.parked and asdict(where.parked),
    }
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def parse_hold(text: str | None) -> OperatorHold | None:
    """Read an entry of `paused` or `draining`; None if there is none."""
    if not text:
        return None
    return OperatorHold(**json.loads(text))


def parse_parked(text: str | None, now_ms: int | None = None) -> Parked | None:
    """Read an entry of `parked`; None if there is none."""
    if not text:
        return None
    state = json.loads(text)
    until_ms = int(state["until_ms"])
    if now_ms is not None and until_ms - now_ms > state["for_ms"]:
        until_ms = now_ms  # the clock was set back: a take admits the next trial tasks
    return Parked(until_ms, int(state["since_ms"]), state["reason"])

"""
Where a task is that has no result yet: it runs, waits, or nobody here knows its id.

Nothing is written for this when a task is queued: what there is in Redis is looked at by whoever
asks, a bounded number of messages at a time. A million waiting prompts are not all looked through.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import redis

from breakwater.config import role_names
from breakwater.errors import ConfigError
from breakwater.messaging.keys import CONSUMED_QUEUES, result_key, task_key
from breakwater.messaging.names import COMMON_QUEUE, PRIORITIES, list_of, queue_of
from breakwater.messaging.task_store import TaskStore
from breakwater.redis.text import to_text

AT_ONCE = 500
"""Messages that Redis looks at in one step, which takes it about a millisecond."""
MOST = 100_000
"""Messages that are looked at; of a task behind more nothing is known."""


@dataclass(frozen=True, slots=True)
class OperatorHold:
    """Somebody's word that nothing is to be taken, or that a worker is to end."""

    who: str
    at_ms: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """A queue that no provider can serve now."""

    until_ms: int
    """When the next few are let through; it may have passed, if nothing waits."""
    since_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a task is."""

    state: Literal["settled", "running", "waiting", "unknown"]
    how: str = ""
    """Of one that waits: `queue`, `delayed`, `shared` (for an equal call) or `taken`."""
    queue: str = ""
    ahead: int | None = None
    """Messages that are taken before it, of its own priority; None: not known."""
    due_ms: int | None = None
    """When it goes back to its queue (ms, Redis' clock); None: it is not put aside."""
    paused: OperatorHold | None = None
    parked: Parked | None = None


def find(client: redis.Redis, task_id: str) -> Whereabouts:
    """
    Look for a task.

    Raises:
        RedisError: Redis is away.
    """
    script = TaskStore(client).script("where")
    keys = [task_key(task_id), result_key(task_id)]
    lists, first = _lists(client), 1
    while first <= MOST:
        found = cast("list[Any]", script(keys=keys, args=[task_id, first, AT_ONCE, *lists]))
        if found[0] != b"more":
            return _read([to_text(word) for word in found])
        first = int(found[1])
    return Whereabouts("unknown")


def _lists(client: redis.Redis) -> list[str]:
    """Name the lists that may hold it: of the queues that are consumed, and of the roles here."""
    try:
        roles: Iterable[str] = role_names() or ()
    except ConfigError:
        roles = ()
    consumed = cast("set[bytes]", client.smembers(CONSUMED_QUEUES))
    names = {COMMON_QUEUE, *map(queue_of, roles), *map(to_text, consumed)}
    return [list_of(name, priority) for name in sorted(names) for priority in PRIORITIES]


def _read(found: list[str]) -> Whereabouts:
    state, *rest = found
    if state == "running":
        return Whereabouts("running", queue=rest[0])
    if state != "waiting":
        return Whereabouts("settled" if state == "settled" else "unknown")
    how, queue, ahead, due, hold, parked = rest
    return Whereabouts(
        "waiting",
        how,
        queue,
        ahead=int(ahead) if int(ahead) >= 0 else None,
        due_ms=round(float(due)) if due else None,
        paused=parse_hold(hold),
        parked=parse_parked(parked),
    )


def as_dict(where: Whereabouts) -> dict[str, Any]:
    """Return what is known, as JSON has it."""
    told = {
        "how": where.how,
        "queue": where.queue,
        "ahead": where.ahead,
        "due_ms": where.due_ms,
        "paused": where.paused and asdict(where.paused),
        "parked": where.parked and asdict(where.parked),
    }
    return {name: value for name, value in told.items() if value is not None and value != ""}


def parse_hold(told: str | None) -> OperatorHold | None:
    """Read an entry of `paused` or `draining`; None if there is none."""
    return OperatorHold(**json.loads(told)) if told else None


def parse_parked(told: str | None, now_ms: int | None = None) -> Parked | None:
    """Read an entry of `parked`; None if there is none."""
    if not told:
        return None
    state = json.loads(told)
    until_ms = int(state["until_ms"])
    if now_ms is not None and until_ms - now_ms > state["for_ms"]:
        until_ms = now_ms  # the clock was set back: a take lets the next few through
    return Parked(until_ms, int(state["since_ms"]), state["reason"])

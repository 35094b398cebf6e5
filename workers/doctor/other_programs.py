"""What `breakwater doctor` finds of other programs on the same database and prefix."""

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any, cast

import redis
from redis.exceptions import RedisError

from breakwater.messaging.names import COMMON_QUEUE, queue_of
from tasks.config import Settings
from workers.doctor.finding import Finding

STEP = "give this fleet its own BREAKWATER_PREFIX, BREAKWATER_QUEUE or database; docs/redis.md"
KOMBUS = "unacked_index"
"""Where Celery's own transport keeps what its workers hold; ours has no such key."""
BINDING = "_kombu.binding."
CELERYS = ("celery", "reply.celery.pidbox", "_deadlines", "_permanent")
"""How exchanges of Celery's own begin, and of kombu's bookkeeping."""


def other_fleets(server: redis.Redis, settings: Settings | None) -> Iterator[Finding]:
    """Name roles files without a role in common: two fleets on one database and prefix."""
    published = cast("dict[Any, Any]", server.hgetall("roles"))
    served = {_text(version): _roles(text) for version, text in published.items()}
    if settings and settings.roles:
        served[settings.version] = frozenset(settings.roles)
    for (one, roles), (other, others) in combinations(sorted(served.items()), 2):
        if roles and others and not roles & others:
            what = (
                f"roles files {one} ({_some(roles)}) and {other} ({_some(others)}) have no role in "
                f"common: two fleets on one database and prefix take each other's prompts"
            )
            yield Finding("warning", "fleets", what, "one BREAKWATER_PREFIX each; docs/redis.md")


def _roles(text: Any) -> frozenset[str]:
    try:
        return frozenset(json.loads(text)["roles"])
    except (ValueError, KeyError, TypeError):
        return frozenset()


def _some(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (" …" if len(names) > 5 else "")


def others_on(server: redis.Redis) -> Iterator[Finding]:
    """Name tasks of other programs, their workers and their queues."""
    tasks = cast("dict[Any, Any]", server.hgetall("foreign"))
    for name, queue in sorted((_text(name), _text(queue)) for name, queue in tasks.items()):
        what = f"queue {queue} has messages of it, and no worker of ours does; they stay there"
        yield Finding("warning", f"task {name}", what, STEP)
    if server.exists(KOMBUS):
        what = (
            f"workers of another Celery program use this database ({KOMBUS}); they drop our "
            f"prompts if they consume queue {COMMON_QUEUE}"
        )
        yield Finding("warning", "other workers", what, STEP)
    if exchanges := sorted(_exchanges(server)):
        what = f"another Celery program has queues here: {', '.join(exchanges[:10])}"
        yield Finding("warning", "other queues", what, STEP)


def _exchanges(server: redis.Redis) -> Iterator[str]:
    ours = (COMMON_QUEUE, queue_of(""), *CELERYS)
    try:
        for key in server.scan_iter(f"{BINDING}*", count=1000, _type="set"):
            name = _text(key).removeprefix(BINDING)
            if not name.startswith(ours):
                yield name
    except RedisError:  # it may not scan
        return


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

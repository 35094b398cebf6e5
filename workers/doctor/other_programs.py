"""Find other programs, and other fleets, on the same database and prefix."""

import json
from collections.abc import Iterator
from itertools import combinations
from typing import cast

import redis
from redis.exceptions import RedisError

from breakwater.messaging.keys import FOREIGN_TASKS
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.redis.text import to_text
from breakwater.roles import ROLES
from tasks.config import Settings
from workers.doctor.finding import Finding, warning

NEXT_STEP = (
    "give this fleet its own BREAKWATER_PREFIX, BREAKWATER_QUEUE or database; "
    "see `breakwater docs configuration#which-redis`"
)
KOMBU_UNACKED = "unacked_index"
"""Celery's own transport keeps the messages that its workers hold here; ours has no such key."""
BINDING = "_kombu.binding."
CELERY_EXCHANGES = ("celery", "reply.celery.pidbox", "_deadlines", "_permanent")
"""Prefixes of Celery's own exchanges and of kombu's bookkeeping."""
MAX_ROLES, MAX_EXCHANGES = 5, 10
"""How many names a line lists."""


def other_fleets(server: redis.Redis, settings: Settings | None) -> Iterator[Finding]:
    """Name roles files without a common role: they belong to two fleets."""
    published = cast("dict[bytes, bytes]", server.hgetall(ROLES))
    served = {to_text(version): _roles(roles) for version, roles in published.items()}
    if settings and settings.roles:
        served[settings.version] = frozenset(settings.roles)
    for (version, roles), (other, other_roles) in combinations(sorted(served.items()), 2):
        if roles and other_roles and not roles & other_roles:
            message = (
                f"roles files {version} ({_some(roles)}) and {other} ({_some(other_roles)}) have "
                f"no role in common: two fleets on one database and prefix take each other's "
                f"prompts"
            )
            yield warning(
                "fleets",
                message,
                "give each its own BREAKWATER_PREFIX; see `breakwater docs redis`",
            )


def _roles(published: bytes) -> frozenset[str]:
    try:
        return frozenset(json.loads(published)["roles"])
    except (ValueError, KeyError, TypeError):
        return frozenset()


def _some(names: frozenset[str]) -> str:
    listed = ", ".join(sorted(names)[:MAX_ROLES])
    if len(names) > MAX_ROLES:
        return f"{listed} …"
    return listed


def other_programs(server: redis.Redis) -> Iterator[Finding]:
    """Name tasks of other programs, their workers and their queues."""
    tasks = cast("dict[bytes, bytes]", server.hgetall(FOREIGN_TASKS))
    for name, queue in sorted((to_text(name), to_text(queue)) for name, queue in tasks.items()):
        message = (
            f"queue {queue} has messages of it, and no worker of this fleet runs it; they stay"
        )
        yield warning(f"task {name}", message, NEXT_STEP)
    if server.exists(KOMBU_UNACKED):
        message = (
            f"workers of another Celery program use this database ({KOMBU_UNACKED}); they drop our "
            f"prompts if they consume queue {COMMON_QUEUE}"
        )
        yield warning("other workers", message, NEXT_STEP)
    if exchanges := sorted(_exchanges(server)):
        listed = ", ".join(exchanges[:MAX_EXCHANGES])
        yield warning(
            "other queues", f"another Celery program has queues here: {listed}", NEXT_STEP
        )


def _exchanges(server: redis.Redis) -> Iterator[str]:
    """Return the exchanges that are not ours; none if the user may not scan."""
    ours = (COMMON_QUEUE, queue_of(""), *CELERY_EXCHANGES)
    try:
        for key in server.scan_iter(f"{BINDING}*", count=1000, _type="set"):
            name = to_text(key).removeprefix(BINDING)
            if not name.startswith(ours):
                yield name
    except RedisError:
        return

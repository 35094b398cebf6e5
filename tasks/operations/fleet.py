"""
The fleet as an operator sees it, and the levers: pause, resume, drain.

The keys are explained at the head of `delivery/scripts/delivery.lua`. A look is one script, cheap
with a million waiting; workers tell of themselves every four seconds. Every `RedisError` comes out
as it is.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.messaging.whereabouts import OperatorHold, Parked, parse_hold, parse_parked
from breakwater.redis.text import to_text
from tasks.delivery.delivery_store import DeliveryStore

RUNNING, QUEUES = "running", "queues"
"""What a worker says of itself, and is looked at here: held by queue, and what it consumes."""


@dataclass(frozen=True, slots=True)
class Queue:
    """How one queue stands."""

    name: str
    role: str
    """Empty for the common queue."""
    depth: int
    oldest_s: float | None
    """How long the next to be taken has waited; None if nothing waits, or it does not say."""
    running: int
    """In workers' hands, as these told within the last four seconds."""
    delayed: int
    """Waiting outside until they are due."""
    consumers: int
    paused: OperatorHold | None
    parked: Parked | None

    @property
    def matters(self) -> bool:
        """Tell a queue of which something is to be said from one of a role that is long gone."""
        return bool(
            self.depth
            or self.running
            or self.delayed
            or self.consumers
            or self.paused
            or self.parked
        )


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker has said of itself within the last seconds."""

    id: str
    name: str
    pool: str
    concurrency: int
    running: int
    queues: list[str]
    version: str
    """Of the roles file it routes by."""
    draining: OperatorHold | None
    grace_s: float | None = None
    """How long its tasks have when it is stopped; None: it does not say."""
    max_open_files: int | None = None
    """How many it may have open; None: it does not say."""
    is_unpatched: bool = False
    """Its greenlets have none of gevent's patches."""
    changed_settings: Mapping[str, Any] = field(default_factory=dict)
    """Celery's settings that delivery rests on and that are not ours, with their values."""


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """The fleet at one moment."""

    now_ms: int
    queues: list[Queue]
    workers: list[Worker]

    def versions(self) -> dict[str, list[str]]:
        """Name the workers by the version that they run; more than one is a fleet in two minds."""
        found: dict[str, list[str]] = {}
        for worker in self.workers:
            found.setdefault(worker.version, []).append(worker.name)
        return found


class Fleet:
    """
    Look at it, and pull its levers.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._store = DeliveryStore(client)

    def snapshot(self, roles: Iterable[str] = ()) -> FleetSnapshot:
        """
        See every queue and every worker.

        Args:
            roles: Whose queues are shown too, though no worker has ever consumed them.
        """
        names = [COMMON_QUEUE, *map(queue_of, roles)]
        now, rows, *tables = cast("list[Any]", self._store.script("look")(args=names))
        delayed, paused, parked, workers, draining = map(_table, tables)
        seen = [_worker(id_, json.loads(told), draining) for id_, told in sorted(workers.items())]
        running: Counter[str] = Counter()
        for told in workers.values():
            running.update(json.loads(told)[RUNNING])
        consumed = Counter(name for worker in seen for name in worker.queues)
        return FleetSnapshot(
            now_ms=now,
            queues=[
                Queue(
                    name=(name := to_text(row[0])),
                    role=name.removeprefix(queue_of("")) if name != COMMON_QUEUE else "",
                    depth=row[1],
                    oldest_s=max(0, now - int(row[2])) / 1000 if row[2] else None,
                    running=running[name],
                    delayed=max(0, int(delayed.get(name, 0))),
                    consumers=consumed[name],
                    paused=parse_hold(paused.get(name)),
                    parked=parse_parked(parked.get(name), now),
                )
                for row in rows
            ],
            workers=sorted(seen, key=lambda worker: worker.name),
        )


def _worker(id_: str, told: dict[str, Any], draining: dict[str, str]) -> Worker:
    return Worker(
        id=id_,
        name=told["name"],
        pool=told["pool"],
        concurrency=told["concurrency"],
        running=sum(told[RUNNING].values()),
        queues=told[QUEUES],
        version=told["version"],
        draining=parse_hold(draining.get(id_)),
        grace_s=told.get("grace_s"),
        max_open_files=told.get("files"),
        is_unpatched=told.get("unpatched", False),
        changed_settings=told.get("altered", {}),
    )


def _table(flat: list[Any]) -> dict[str, str]:
    words = [to_text(word) for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))

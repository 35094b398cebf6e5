"""
A snapshot of the fleet: its queues and its workers.

The keys are explained at the head of `breakwater/messaging/scripts/delivery.lua`. A snapshot is one
script, cheap with a million waiting tasks. Workers describe themselves every four seconds. Every
`RedisError` is raised as it is. `tasks.operations.operator` changes the fleet.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict, cast

import redis

from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.messaging.whereabouts import OperatorHold, Parked, parse_hold, parse_parked
from breakwater.redis.text import to_text
from tasks.delivery.delivery_store import DeliveryStore

_Table = list[bytes]
_Reply = tuple[int, list[tuple[bytes, int, bytes]], _Table, _Table, _Table, _Table, _Table]
"""
The reply of `look.lua`.

The time in ms; each queue's name, depth, and the time at which its next task was enqueued; then the
hashes `delayed:queues`, `paused`, `parked`, `workers` and `draining`.
"""


class WorkerDescription(TypedDict):
    """A worker's description of itself, as JSON in the hash `workers`."""

    name: str
    pool: str
    concurrency: int
    running: dict[str, int]
    """The number of running tasks by queue."""
    queues: list[str]
    version: str
    grace_s: NotRequired[float]
    files: NotRequired[int]
    unpatched: NotRequired[bool]
    altered: NotRequired[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Queue:
    """The state of one queue."""

    name: str
    role: str
    """Empty for the common queue."""
    depth: int
    oldest_s: float | None
    """How long the next task has waited; None if no task waits, or its producer sent no time."""
    running: int
    """Tasks that workers run, as of the last four seconds."""
    delayed: int
    """Tasks that wait outside the queue until they are due."""
    consumers: int
    paused: OperatorHold | None
    parked: Parked | None

    @property
    def is_in_use(self) -> bool:
        """Whether there is something to show; False for the queue of a role that is long gone."""
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
    """A worker, as it has described itself within the last seconds."""

    id: str
    name: str
    pool: str
    concurrency: int
    running: int
    queues: list[str]
    version: str
    """The version of its roles file."""
    draining: OperatorHold | None
    grace_s: float | None = None
    """How long its tasks may run on when it is stopped; None: not reported."""
    max_open_files: int | None = None
    """None: not reported."""
    is_unpatched: bool = False
    """Its greenlets run without gevent's patches."""
    changed_settings: Mapping[str, object] = field(default_factory=dict)
    """Settings of Celery that delivery relies on and that are not ours, with their values."""


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """The fleet at one moment."""

    now_ms: int
    queues: list[Queue]
    workers: list[Worker]

    def versions(self) -> dict[str, list[str]]:
        """Return the workers' names by the version of their roles file; one, if workers agree."""
        names: dict[str, list[str]] = {}
        for worker in self.workers:
            names.setdefault(worker.version, []).append(worker.name)
        return names


class Fleet:
    """
    Read the state of the fleet.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._store = DeliveryStore(client)

    def snapshot(self, roles: Iterable[str] = ()) -> FleetSnapshot:
        """
        Read the state of every queue and every worker.

        Args:
            roles: Their queues are included even if no worker has ever consumed them.
        """
        names = [COMMON_QUEUE, *map(queue_of, roles)]
        reply = cast("_Reply", self._store.script("look")(args=names))
        now_ms, rows = reply[0], reply[1]
        delayed, paused, parked, texts, draining = map(_table, reply[2:])
        descriptions: dict[str, WorkerDescription]
        descriptions = {id_: json.loads(text) for id_, text in texts.items()}
        running: Counter[str] = Counter()
        consumers: Counter[str] = Counter()
        for description in descriptions.values():
            running.update(description["running"])
            consumers.update(description["queues"])
        queues: list[Queue] = []
        for row_name, depth, enqueued_ms in rows:
            name = to_text(row_name)
            queue = Queue(
                name=name,
                role=_role(name),
                depth=depth,
                oldest_s=_age_s(enqueued_ms, now_ms),
                running=running[name],
                delayed=max(0, int(delayed.get(name, 0))),
                consumers=consumers[name],
                paused=parse_hold(paused.get(name)),
                parked=parse_parked(parked.get(name), now_ms),
            )
            queues.append(queue)
        workers = [
            _worker(id_, description, parse_hold(draining.get(id_)))
            for id_, description in descriptions.items()
        ]
        return FleetSnapshot(now_ms, queues, sorted(workers, key=lambda each: (each.name, each.id)))


def _role(queue: str) -> str:
    if queue == COMMON_QUEUE:
        return ""
    return queue.removeprefix(queue_of(""))


def _age_s(enqueued_ms: bytes, now_ms: int) -> float | None:
    if not enqueued_ms:
        return None
    return max(0, now_ms - int(enqueued_ms)) / 1000


def _worker(id_: str, description: WorkerDescription, draining: OperatorHold | None) -> Worker:
    return Worker(
        id=id_,
        name=description["name"],
        pool=description["pool"],
        concurrency=description["concurrency"],
        running=sum(description["running"].values()),
        queues=description["queues"],
        version=description["version"],
        draining=draining,
        grace_s=description.get("grace_s"),
        max_open_files=description.get("files"),
        is_unpatched=description.get("unpatched", False),
        changed_settings=description.get("altered", {}),
    )


def _table(flat: Iterable[bytes]) -> dict[str, str]:
    words = [to_text(word) for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))

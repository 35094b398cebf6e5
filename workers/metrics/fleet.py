"""
Read the fleet's part of `/metrics` from Redis, at each scrape, within about a second.

A snapshot of all workers costs Redis 1 µs per worker, and Prometheus scrapes every worker. In a
large fleet one snapshot serves all scrapes of the next seconds.
"""

import json
from collections.abc import Iterable, Iterator
from typing import TypedDict, cast

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from breakwater.messaging.keys import COUNTS, DEAD_LETTERS, LEDGER
from breakwater.redis.connection import client
from tasks.answering import runtime
from tasks.operations.fleet import Fleet, FleetSnapshot, Queue
from workers.metrics import definitions
from workers.metrics.definitions import Metric

TIMEOUT_S = 0.4
"""For a connection and for each answer; the first failure ends the scrape's reads."""
STATES = ("closed", "open", "half-open")
FORCED_STATES = ("closed", "open")
SNAPSHOT_KEY, SNAPSHOT_MS = "workers:seen", 5_000
"""The Redis key of the shared snapshot, and how long it is valid."""
LARGE_FLEET = 50
"""From this number of workers on, scrapes share a snapshot."""
COUNTER_FIELDS = {
    definitions.DEAD: b"dead",
    definitions.DUPLICATES: b"duplicates",
    definitions.RECOVERED: b"recovered",
    definitions.SUPERSEDED: b"superseded",
}
"""The field of the hash `delivery` by metric."""
QUEUE_METRICS = (
    definitions.DEPTH,
    definitions.OLDEST_S,
    definitions.RUNNING,
    definitions.DELAYED,
    definitions.CONSUMERS,
    definitions.PAUSED,
    definitions.PARKED,
)

_Family = GaugeMetricFamily | CounterMetricFamily
_Rows = Iterable[tuple[tuple[str, ...], float]]
_QueueRow = dict[str, str | float]


class _SharedSnapshot(TypedDict):
    """What scrapes share, as JSON; workers of other versions read it too."""

    queues: list[_QueueRow]
    """`name`, `role`, `matters`, and the value of each queue metric by the metric's name."""
    workers: dict[str, int]
    """Number of workers by the label `draining`."""
    versions: int


class FleetMetrics(Collector):
    """Collect queues, workers, breakers and dead letters at each scrape."""

    def __init__(self) -> None:
        self._client = client(connect_s=TIMEOUT_S, answer_s=TIMEOUT_S)
        self._fleet = Fleet(self._client)

    def describe(self) -> Iterator[_Family]:
        """List the metrics, so that `/metrics?name[]=…` for other ones reads nothing from Redis."""
        return (_family(metric, ()) for metric in definitions.OF_FLEET)

    def collect(self) -> Iterator[_Family]:
        """Return all metrics; without Redis, only this worker's last view of the breakers."""
        try:
            families = list(self._read())
        except RedisError:
            families = [_family(definitions.REDIS_UP, [((), 0)])]
        yield from families
        yield from _breaker_metrics()

    def _read(self) -> Iterator[_Family]:
        roles = set(runtime.runtime().settings.roles)
        yield from _fleet_metrics(self._snapshot(roles), roles)
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(COUNTS)
        pipe.xlen(DEAD_LETTERS)
        pipe.xlen(LEDGER)
        counts, dead, rows = cast("tuple[dict[bytes, bytes], int, int]", pipe.execute())
        for metric, field in COUNTER_FIELDS.items():
            yield _family(metric, [((), int(counts.get(field, 0)))])
        yield _family(definitions.DEAD_KEPT, [((), dead)])
        yield _family(definitions.LEDGER_ROWS, [((), rows)])
        yield _family(definitions.REDIS_UP, [((), 1)])

    def _snapshot(self, roles: Iterable[str]) -> _SharedSnapshot:
        """Return the shared snapshot if it is recent; else take one, and share it."""
        pipe = self._client.pipeline(transaction=False)
        pipe.get(SNAPSHOT_KEY)
        pipe.pttl(SNAPSHOT_KEY)
        shared, left_ms = cast("tuple[bytes | None, int]", pipe.execute())
        if shared and left_ms <= SNAPSHOT_MS:  # more is left if Redis' clock was set back
            return cast("_SharedSnapshot", json.loads(shared))
        fleet = self._fleet.snapshot(roles)
        snapshot = _to_share(fleet)
        if len(fleet.workers) >= LARGE_FLEET:
            self._client.set(SNAPSHOT_KEY, json.dumps(snapshot), px=SNAPSHOT_MS)
        return snapshot


def _to_share(fleet: FleetSnapshot) -> _SharedSnapshot:
    draining = sum(worker.draining is not None for worker in fleet.workers)
    return {
        "queues": [_queue_row(queue) for queue in fleet.queues],
        "workers": {"no": len(fleet.workers) - draining, "yes": draining},
        "versions": len(fleet.versions()),
    }


def _queue_row(queue: Queue) -> _QueueRow:
    return {
        "name": queue.name,
        "role": queue.role,
        "matters": queue.is_in_use,
        definitions.DEPTH.name: queue.depth,
        definitions.OLDEST_S.name: queue.oldest_s or 0,
        definitions.RUNNING.name: queue.running,
        definitions.DELAYED.name: queue.delayed,
        definitions.CONSUMERS.name: queue.consumers,
        definitions.PAUSED.name: queue.paused is not None,
        definitions.PARKED.name: queue.parked is not None,
    }


def _fleet_metrics(snapshot: _SharedSnapshot, roles: set[str]) -> Iterator[_Family]:
    queues = [
        (str(queue["name"]), str(queue["role"]), queue)
        for queue in snapshot["queues"]
        if queue["role"] in roles or queue["matters"]
    ]
    for metric in QUEUE_METRICS:
        rows = (((name, role), float(queue[metric.name])) for name, role, queue in queues)
        yield _family(metric, rows)
    workers = (((draining,), number) for draining, number in snapshot["workers"].items())
    yield _family(definitions.WORKERS, workers)
    yield _family(definitions.VERSIONS, [((), snapshot["versions"])])


def _breaker_metrics() -> Iterator[_Family]:
    states = runtime.runtime().breakers.peek_all()  # bounded in time, and never an error
    yield _family(
        definitions.STATE, (((b.name, name), b.state == name) for b in states for name in STATES)
    )
    yield _family(
        definitions.FORCED,
        (((b.name, name), b.forced == name) for b in states for name in FORCED_STATES),
    )
    yield _family(definitions.DUE, (((b.name,), b.due) for b in states))
    yield _family(definitions.FAILURES, (((b.name,), b.failures) for b in states))
    yield _family(definitions.HELD_S, (((b.name,), b.held_for_s) for b in states))


def _family(metric: Metric, rows: _Rows) -> _Family:
    family: _Family
    if metric.kind == "counter":
        family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in rows:
        family.add_metric(labels, float(value))
    return family

"""
What `/metrics` tells of the fleet: read from Redis at the scrape, within about a second.

A look at all workers takes Redis 1 µs for each, and every worker is scraped: in a large fleet one
looks for all who are scraped within the next seconds.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, cast

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from breakwater.redis.connection import client
from tasks.answering import runtime
from tasks.operations.fleet import Fleet, FleetSnapshot
from workers.metrics import definitions
from workers.metrics.definitions import Metric

BOUND_S = 0.4
"""For a connection, and for each answer; after the first failure nothing more is asked."""
STATES = ("closed", "open", "half-open")
FORCED = ("closed", "open")
SEEN, SEEN_MS = "workers:seen", 5_000
"""Where what was seen is kept, and for how long."""
MANY = 50
"""Workers from which on it is kept."""
COUNTS = {
    definitions.DEAD: b"dead",
    definitions.DUPLICATES: b"duplicates",
    definitions.RECOVERED: b"recovered",
    definitions.SUPERSEDED: b"superseded",
}
"""By metric, the field of the hash `delivery`."""
OF_QUEUES = (
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


class FleetMetrics(Collector):
    """Look at queues, workers, breakers and dead letters whenever somebody scrapes."""

    def __init__(self) -> None:
        self._client = client(connect_s=BOUND_S, answer_s=BOUND_S)
        self._fleet = Fleet(self._client)

    def describe(self) -> Iterator[_Family]:
        """Name them, so that `/metrics?name[]=…` of others asks Redis nothing."""
        return (_family(metric, ()) for metric in definitions.OF_FLEET)

    def collect(self) -> Iterator[_Family]:
        """Tell what Redis tells; without it, only how this worker last saw the breakers."""
        try:
            told = list(self._asked())
        except RedisError:
            told = [_family(definitions.REDIS_UP, [((), 0)])]
        yield from told
        yield from _of_breakers()

    def _asked(self) -> Iterator[_Family]:
        now = runtime.runtime()
        yield from _of_fleet(self._look(now.settings.roles), set(now.settings.roles))
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall("delivery")
        pipe.xlen("dead")
        pipe.xlen("ledger")
        counts, dead, rows = cast("tuple[dict[bytes, bytes], int, int]", pipe.execute())
        for metric, field in COUNTS.items():
            yield _family(metric, [((), int(counts.get(field, 0)))])
        yield _family(definitions.DEAD_KEPT, [((), dead)])
        yield _family(definitions.LEDGER_ROWS, [((), rows)])
        yield _family(definitions.REDIS_UP, [((), 1)])

    def _look(self, roles: Iterable[str]) -> dict[str, Any]:
        """Look at the queues and workers, or take what another one has just seen."""
        pipe = self._client.pipeline(transaction=False)
        pipe.get(SEEN)
        pipe.pttl(SEEN)
        kept, left_ms = cast("tuple[bytes | None, int]", pipe.execute())
        if kept and left_ms <= SEEN_MS:  # else Redis' clock was set back
            return cast("dict[str, Any]", json.loads(kept))
        view = self._fleet.snapshot(roles)
        seen = _told(view)
        if len(view.workers) >= MANY:
            self._client.set(SEEN, json.dumps(seen), px=SEEN_MS)
        return seen


def _told(view: FleetSnapshot) -> dict[str, Any]:
    draining = sum(worker.draining is not None for worker in view.workers)
    return {
        "queues": [
            {
                "name": queue.name,
                "role": queue.role,
                "matters": queue.matters,
                definitions.DEPTH.name: queue.depth,
                definitions.OLDEST_S.name: queue.oldest_s or 0,
                definitions.RUNNING.name: queue.running,
                definitions.DELAYED.name: queue.delayed,
                definitions.CONSUMERS.name: queue.consumers,
                definitions.PAUSED.name: queue.paused is not None,
                definitions.PARKED.name: queue.parked is not None,
            }
            for queue in view.queues
        ],
        "workers": {"no": len(view.workers) - draining, "yes": draining},
        "versions": len(view.versions()),
    }


def _of_fleet(seen: dict[str, Any], roles: set[str]) -> Iterator[_Family]:
    queues = [queue for queue in seen["queues"] if queue["role"] in roles or queue["matters"]]
    for metric in OF_QUEUES:
        yield _family(
            metric, (((queue["name"], queue["role"]), queue[metric.name]) for queue in queues)
        )
    yield _family(definitions.WORKERS, (((word,), n) for word, n in seen["workers"].items()))
    yield _family(definitions.VERSIONS, [((), seen["versions"])])


def _of_breakers() -> Iterator[_Family]:
    seen = runtime.runtime().breakers.peek_all()  # bounded too, and never an error
    yield _family(
        definitions.STATE, (((b.name, state), b.state == state) for b in seen for state in STATES)
    )
    yield _family(
        definitions.FORCED, (((b.name, state), b.forced == state) for b in seen for state in FORCED)
    )
    yield _family(definitions.DUE, (((b.name,), b.due) for b in seen))
    yield _family(definitions.FAILURES, (((b.name,), b.failures) for b in seen))
    yield _family(definitions.HELD_S, (((b.name,), b.held_for_s) for b in seen))


def _family(metric: Metric, rows: _Rows) -> _Family:
    kind: Any = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family: _Family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in rows:
        family.add_metric(labels, float(value))
    return family

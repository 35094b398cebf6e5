"""Count a worker's attempts, results and transitions for `/metrics`, with prometheus_client."""

import os
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, values

from breakwater.attempt import NOT_CALLED
from tasks.config import Settings
from tasks.telemetry.observers import State
from tasks.telemetry.sinks import FinishedAttempt
from workers.metrics import definitions
from workers.metrics.definitions import Metric

MAX_ROLES = 100
"""Labels for roles that the roles file does not name; all further roles share `OTHER_ROLE`."""
OTHER_ROLE = "other"
_TARGET_METRICS = (
    definitions.INPUT,
    definitions.OUTPUT,
    definitions.CACHED,
    definitions.CACHE_WRITE,
    definitions.REASONING,
    definitions.COST,
    definitions.UNPRICED,
)
_TRANSITIONS = (
    ("closed", "open"),
    ("open", "half-open"),
    ("half-open", "open"),
    ("half-open", "closed"),
)


class Counters:
    """
    Count attempts, results and transitions in files that a scrape adds up.

    Args:
        settings: Their providers and roles are exported at 0 from the start; otherwise a rate
            would miss the first count.
        folder: Where the files are.
        name: Returns the name of this process's files, which no other living process has; called
            at every count, because a fork changes it.
    """

    def __init__(self, settings: Settings, folder: Path, name: Callable[[], str]) -> None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        values.ValueClass = values.MultiProcessValue(name)
        registry = CollectorRegistry()
        self._metrics = {metric.name: _make(metric, registry) for metric in definitions.BY_PROCESS}
        self._adds: dict[tuple[str, ...], Callable[[float], None]] = {}
        self._roles = set(settings.roles)
        self._max_roles = len(self._roles) + MAX_ROLES
        self._export_zeros(settings)

    def _export_zeros(self, settings: Settings) -> None:
        for provider in settings.providers:
            for before, after in _TRANSITIONS:
                self._adder(definitions.TRANSITIONS, provider, before, after)
        for role in settings.roles.values():
            for state in ("succeeded", "failed"):
                self._adder(definitions.TASKS, role.name, state)
            for target in role.chain:
                self._adder(definitions.ATTEMPTS, target.provider, role.name, "succeeded", "")
                for metric in _TARGET_METRICS:
                    self._adder(metric, target.provider, role.name)

    def record(self, finished: FinishedAttempt) -> None:
        """Count an attempt; about 10 µs."""
        attempt, role = finished.attempt, self._role(finished.task["role"])
        outcome, target = attempt.recorded_outcome, (attempt.provider, role)
        self._add(1, definitions.ATTEMPTS, *target, outcome, attempt.error or "")
        if outcome in NOT_CALLED:
            return
        self._add(attempt.latency_ms / 1000, definitions.ATTEMPT_S, *target, outcome)
        usage = attempt.usage
        counts = (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            float(attempt.cost.usd or 0),
            attempt.cost.source == "unpriced",
        )
        for metric, count in zip(_TARGET_METRICS, counts, strict=True):
            if count:
                self._add(count, metric, *target)

    def result(self, role: str, state: State, duration_s: float) -> None:
        """Count a settled task."""
        role = self._role(role)
        self._add(1, definitions.TASKS, role, state)
        self._add(duration_s, definitions.TASK_S, role, state)

    def transition(self, breaker: str, before: str, after: str) -> None:
        """Count a breaker's transition."""
        self._add(1, definitions.TRANSITIONS, breaker, before, after)

    def _add(self, amount: float, metric: Metric, *labels: str) -> None:
        add = self._adds.get((metric.name, *labels)) or self._adder(metric, *labels)
        add(amount)

    def _adder(self, metric: Metric, *labels: str) -> Callable[[float], None]:
        add = _add_method(self._metrics[metric.name].labels(*labels))
        self._adds[metric.name, *labels] = add
        return add

    def _role(self, role: str) -> str:
        """Return the role's label: if any name is a role, not every name gets its own label."""
        if role not in self._roles:
            if len(self._roles) >= self._max_roles:
                return OTHER_ROLE
            self._roles.add(role)
        return role


def _add_method(child: Counter | Histogram) -> Callable[[float], None]:
    if isinstance(child, Histogram):
        return child.observe
    return child.inc


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Histogram:
    if metric.kind == "histogram":
        return Histogram(
            metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
        )
    return Counter(metric.name, metric.help, metric.labels, registry=registry)

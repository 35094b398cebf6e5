"""
Define every metric of `/metrics`: its name, its labels and its meaning.

Names follow Prometheus' conventions: base units, `_total` on counters, and labels over which a sum
is meaningful. docs/monitoring.md contains this table, and a test compares the two.
Source: prometheus.io/docs/practices/naming.
"""

from dataclasses import dataclass
from typing import Literal

CALL_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of a call's duration; the longest that a roles file allows by default is 120 s."""
TASK_BOUNDS_S = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0)
"""Upper bounds of a task's duration; a task may wait for hours."""

_TARGET = ("provider", "role")
_QUEUE = ("queue", "role")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# Counted by each process; a scrape adds up the processes of one host.
ATTEMPTS = Metric(
    "breakwater_attempts_total", "counter",
    "Targets called or skipped, by outcome: succeeded, failed, rejected,"
    " abandoned or cached; error is the error's class.",
    (*_TARGET, "outcome", "error"),
)  # fmt: skip
ATTEMPT_S = Metric(
    "breakwater_attempt_duration_seconds", "histogram",
    "How long calls to providers took.", (*_TARGET, "outcome"), CALL_BOUNDS_S,
)  # fmt: skip
INPUT = Metric(
    "breakwater_input_tokens_total", "counter", "Input tokens, cached ones included.", _TARGET
)
OUTPUT = Metric(
    "breakwater_output_tokens_total", "counter", "Output tokens, reasoning included.", _TARGET
)
CACHED = Metric(
    "breakwater_cached_input_tokens_total", "counter", "Input tokens read from a cache.", _TARGET
)
CACHE_WRITE = Metric(
    "breakwater_cache_write_tokens_total", "counter", "Input tokens written to a cache.", _TARGET
)
REASONING = Metric(
    "breakwater_reasoning_tokens_total", "counter", "Output tokens spent on reasoning.", _TARGET
)
COST = Metric("breakwater_cost_usd_total", "counter", "US dollars spent.", _TARGET)
UNPRICED = Metric(
    "breakwater_unpriced_attempts_total", "counter",
    "Calls with usage whose price is unknown; the cost leaves them out.", _TARGET,
)  # fmt: skip
TASKS = Metric(
    "breakwater_tasks_total", "counter", "Tasks settled: succeeded or failed.", ("role", "state")
)
TASK_S = Metric(
    "breakwater_task_duration_seconds", "histogram",
    "Time from delay() to the settled result, waiting included.", ("role", "state"), TASK_BOUNDS_S,
)  # fmt: skip
TRANSITIONS = Metric(
    "breakwater_breaker_transitions_total", "counter",
    "Transitions that workers made; overrides by an operator are not counted.",
    ("breaker", "before", "after"),
)  # fmt: skip

# Read from Redis at each scrape. They describe the fleet, so every host returns the same values:
# use max().
REDIS_UP = Metric("breakwater_redis_up", "gauge", "Whether Redis answered this scrape.")
DEPTH = Metric("breakwater_queue_depth", "gauge", "Tasks that wait in the queue.", _QUEUE)
OLDEST_S = Metric(
    "breakwater_queue_oldest_seconds", "gauge",
    "How long the next task to be taken has waited; 0 if none waits.", _QUEUE,
)  # fmt: skip
RUNNING = Metric("breakwater_queue_running", "gauge", "Tasks that workers hold.", _QUEUE)
DELAYED = Metric("breakwater_queue_delayed", "gauge", "Tasks that wait until they are due.", _QUEUE)
CONSUMERS = Metric("breakwater_queue_consumers", "gauge", "Workers that consume the queue.", _QUEUE)
PAUSED = Metric(
    "breakwater_queue_paused", "gauge", "1 while an operator has paused the queue.", _QUEUE
)
PARKED = Metric(
    "breakwater_queue_parked", "gauge", "1 while no provider can serve the queue's role.", _QUEUE
)
WORKERS = Metric("breakwater_workers", "gauge", "Workers whose heartbeat is recent.", ("draining",))
VERSIONS = Metric(
    "breakwater_roles_versions", "gauge",
    "Different roles files that workers route by; more than 1 means workers disagree.",
)  # fmt: skip
STATE = Metric(
    "breakwater_breaker_state", "gauge",
    "1 for the state that the breaker is in: closed, open or half-open.", ("breaker", "state"),
)  # fmt: skip
FORCED = Metric(
    "breakwater_breaker_forced", "gauge",
    "1 while an operator keeps the breaker open or closed, whatever its state.",
    ("breaker", "state"),
)  # fmt: skip
DUE = Metric(
    "breakwater_breaker_due", "gauge",
    "1 while the breaker is not closed, would admit a probe, and no call probes it.",
    ("breaker",),
)  # fmt: skip
FAILURES = Metric("breakwater_breaker_failures", "gauge", "Consecutive failures.", ("breaker",))
HELD_S = Metric(
    "breakwater_breaker_held_seconds", "gauge",
    "Remaining time for which Retry-After holds the provider back.", ("breaker",),
)  # fmt: skip
DEAD = Metric("breakwater_dead_letters_total", "counter", "Tasks that became dead letters.")
DEAD_KEPT = Metric("breakwater_dead_letters_kept", "gauge", "Dead letters that are stored now.")
DUPLICATES = Metric(
    "breakwater_duplicates_total",
    "counter",
    "Calls that were repeated although they may have been paid for.",
)
RECOVERED = Metric(
    "breakwater_recovered_total",
    "counter",
    "Tasks requeued because their worker's heartbeat stopped.",
)
SUPERSEDED = Metric(
    "breakwater_superseded_total",
    "counter",
    "Answers that came too late: another delivery had begun.",
)
LEDGER_ROWS = Metric(
    "breakwater_ledger_rows_waiting",
    "gauge",
    "Ledger rows in Redis that are not in the database yet.",
)

BY_PROCESS = (
    ATTEMPTS, ATTEMPT_S, INPUT, OUTPUT, CACHED, CACHE_WRITE, REASONING, COST, UNPRICED, TASKS,
    TASK_S, TRANSITIONS,
)  # fmt: skip
OF_FLEET = (
    REDIS_UP, DEPTH, OLDEST_S, RUNNING, DELAYED, CONSUMERS, PAUSED, PARKED, WORKERS, VERSIONS,
    STATE, FORCED, DUE, FAILURES, HELD_S, DEAD, DEAD_KEPT, DUPLICATES, RECOVERED, SUPERSEDED,
    LEDGER_ROWS,
)  # fmt: skip

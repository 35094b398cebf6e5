"""
Sinks of attempts: the log, the metrics, the span and the ledger each receive every attempt.

A worker installs the sinks of its process when it starts. The ledger's sink belongs to one task, so
`tasks.ledger.attempt_recorder` appends it to these.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, Protocol, TypedDict

import structlog

from breakwater.attempt import Attempt

if TYPE_CHECKING:
    from tasks.config import ProviderSettings
    from tasks.providers.base import Completion

_log = structlog.get_logger("breakwater")


class TaskFields(TypedDict):
    """The fields that all attempts of one task share; a row of the ledger has all of them."""

    task_id: str
    role: str
    queued_ms: NotRequired[int]
    worker: NotRequired[str]
    roles_version: NotRequired[str]
    metadata: NotRequired[dict[str, object]]


@dataclass(slots=True)
class FinishedAttempt:
    """An attempt that is over."""

    task: TaskFields
    attempt: Attempt
    provider: "ProviderSettings"
    model: str
    """The model that was requested; `attempt.model` is the one that answered."""
    completion: "Completion | None" = None


class AttemptSink(Protocol):
    """Receives attempts."""

    def record(self, finished: FinishedAttempt) -> None:
        """Record an attempt; an error is logged, and changes neither the task nor other sinks."""


class AttemptLog:
    """Writes one line of the log for each attempt: never a prompt, an answer or a key."""

    def record(self, finished: FinishedAttempt) -> None:
        """Write the line; attempts without an answer are warnings."""
        attempt, task = finished.attempt, finished.task
        is_answered = attempt.outcome in {"succeeded", "cached"}
        write_line = _log.info if is_answered else _log.warning  # each look-up costs 2 µs
        write_line(
            "attempt",
            task_id=task["task_id"],
            role=task["role"],
            **attempt.as_dict(),
            input_tokens=attempt.usage.input_tokens,
            output_tokens=attempt.usage.output_tokens,
        )


installed: list[AttemptSink] = [AttemptLog()]
"""The sinks of this process."""


def record(finished: FinishedAttempt, sinks: Iterable[AttemptSink]) -> None:
    """Send an attempt to each sink; the answer is paid for, so no sink's error may lose it."""
    for sink in sinks:
        try:
            sink.record(finished)
        except Exception as error:  # noqa: BLE001 - a full disk, for example
            name = type(sink).__name__
            _log.error("attempt_sink.failed", sink=name, error=type(error).__name__)

"""
What happened to a task, one attempt at a time.

An attempt is one target of the chain, tried or passed over. Attempts travel in the result, in the
errors at `.get()`, and to the log, one line each.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import structlog

from tasks.providers.base import Usage

log = structlog.get_logger("breakwater")

RETRIED = "Retried"
"""The error of the attempt behind which the next life of a dead letter's task begins."""

Outcome = Literal["succeeded", "failed", "rejected"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One target tried, or passed over because its breaker refused."""

    provider: str
    model: str
    outcome: Outcome
    error: str | None = None
    """The class of the error, as in `tasks.errors`; None when the attempt succeeded."""
    status: int | None = None
    """The HTTP status of the error, None where there was none."""
    latency_ms: int = 0
    cost_usd: str | None = None
    """US dollars as a decimal string; None when the price is not known."""
    why: str = ""
    """Why this target was chosen or passed over, in words."""

    def as_dict(self) -> dict[str, Any]:
        """Return the attempt as the result's JSON object."""
        return asdict(self)


def record(attempt: Attempt, *, task_id: str, role: str, usage: Usage | None = None) -> None:
    """Write the attempt's line to the log: never a prompt, never an answer, never a key."""
    write = log.info if attempt.outcome == "succeeded" else log.warning
    write(
        "attempt",
        task_id=task_id,
        role=role,
        provider=attempt.provider,
        model=attempt.model,
        outcome=attempt.outcome,
        error=attempt.error,
        status=attempt.status,
        latency_ms=attempt.latency_ms,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        why=attempt.why,
    )

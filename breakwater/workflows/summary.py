"""What is kept and told of a stage's end: who served it, what it cost; never what it said."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from breakwater.attempt import read_attempts
from breakwater.result import Result

TOLD = ("workflow", "run", "stage", "round", "role", "provider", "model", "state",
        "latency_ms", "cost_usd")  # fmt: skip
"""What a line of the log has."""


def of_answer(result: Result, until: str | None) -> dict[str, Any]:
    """
    Return the facts of a stage that succeeded.

    Args:
        until: What its loop's condition makes of it; None if it is not asked.
    """
    kept = ("provider", "model", "finish_reason", "cost_usd", "latency_ms")
    facts = {name: result.get(name) for name in kept}
    return {**facts, "until": until} if until else facts


def of_error(error: BaseException) -> dict[str, Any]:
    """Return the facts of a stage that failed; the last target that was asked stands for it."""
    facts: dict[str, Any] = {
        "provider": None, "model": None, "latency_ms": None, "cost_usd": None,
        "error": type(error).__name__,
    }  # fmt: skip
    attempts = read_attempts(getattr(error, "attempts", None) or [])
    if not attempts:
        return facts
    last = attempts[-1]
    facts.update(provider=last.provider, model=last.model, latency_ms=last.latency_ms)
    costs = [each.cost.usd for each in attempts if each.cost.usd is not None]
    if costs:
        facts["cost_usd"] = str(sum(costs))
    return facts


def cost_usd(stage_runs: Iterable[Mapping[str, Any]]) -> str | None:
    """Add up what the stage runs cost that have ended; None if an answer's price is not known."""
    total = Decimal(0)
    for facts in stage_runs:
        if (cost := facts.get("cost_usd")) is not None:
            total += Decimal(cost)
        elif facts["state"] == "succeeded":
            return None
    return str(total)


def line(workflow: str, run: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the log's line of a stage's end says."""
    known = {**facts, "workflow": workflow, "run": run}
    return {name: known.get(name) for name in TOLD}

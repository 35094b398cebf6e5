"""What is kept and told of a stage's end: who served it, what it cost; never what it said."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

TOLD = ("workflow", "run", "stage", "round", "role", "provider", "model", "state",
        "latency_ms", "cost_usd")  # fmt: skip
"""What a line of the log has."""


def of_answer(result: Mapping[str, Any], until: str | None) -> dict[str, Any]:
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
    attempts: list[Mapping[str, Any]] = getattr(error, "attempts", None) or [{}]
    last = attempts[-1]
    costs = [each["cost_usd"] for each in attempts if each.get("cost_usd") is not None]
    return {
        "provider": last.get("provider"),
        "model": last.get("model"),
        "latency_ms": last.get("latency_ms"),
        "cost_usd": str(sum(map(Decimal, costs))) if costs else None,
        "error": type(error).__name__,
    }


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

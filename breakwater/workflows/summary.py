"""The facts stored and logged when a stage ends: who served it and its cost, never its text."""

from collections.abc import Iterable
from decimal import Decimal

from breakwater.attempt import read_attempts
from breakwater.result import Result
from breakwater.workflows.progress import StageFacts

LOGGED = ("workflow", "run", "stage", "round", "role", "provider", "model", "state",
        "latency_ms", "cost_usd")  # fmt: skip
"""The fields of a log line."""


def of_answer(result: Result, until: str | None) -> StageFacts:
    """
    Return the facts of a stage that succeeded.

    Args:
        until: The outcome of its loop's condition; None if that tests another stage.
    """
    facts = StageFacts(
        provider=result["provider"],
        model=result["model"],
        finish_reason=result["finish_reason"],
        cost_usd=result["cost_usd"],
        latency_ms=result["latency_ms"],
    )
    if until:
        facts["until"] = until
    return facts


def of_error(error: BaseException) -> StageFacts:
    """Return the facts of a stage that failed; provider and model are those of the last attempt."""
    facts: StageFacts = {
        "provider": None, "model": None, "latency_ms": None, "cost_usd": None,
        "error": type(error).__name__,
    }  # fmt: skip
    attempts = read_attempts(getattr(error, "attempts", None) or [])
    if not attempts:
        return facts
    last = attempts[-1]
    facts["provider"], facts["model"] = last.provider, last.model
    facts["latency_ms"] = last.latency_ms
    costs = [each.cost.usd for each in attempts if each.cost.usd is not None]
    if costs:
        facts["cost_usd"] = str(sum(costs))
    return facts


def cost_usd(stage_runs: Iterable[StageFacts]) -> str | None:
    """
    Sum the costs of the stage runs that have ended; None if the price of an answer is unknown.
    """
    total = Decimal(0)
    for facts in stage_runs:
        if (cost := facts.get("cost_usd")) is not None:
            total += Decimal(cost)
        elif facts["state"] == "succeeded":
            return None
    return str(total)


def line(workflow: str, run: str, facts: StageFacts) -> dict[str, object]:
    """Return the fields of the log line of a stage's end."""
    fields: dict[str, object] = {**facts, "workflow": workflow, "run": run}
    return {name: fields.get(name) for name in LOGGED}

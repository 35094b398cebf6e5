"""Rows of the ledger, as a worker writes them."""

import json
import random
from decimal import Decimal
from typing import Any

from breakwater.attempt import Attempt, Cost, Usage

DAY_MS = 24 * 3600 * 1000
START_MS = 20_000 * DAY_MS
TASK = {
    "task_id": "t1", "role": "coder", "queued_ms": 4, "worker": "host:1",
    "roles_version": "abc", "metadata": {},
}  # fmt: skip


def row(task_id: str = "t1", number: int = 1, **fields: Any) -> str:
    """One row; by default of a successful attempt."""
    task = {**TASK, "task_id": task_id}
    task |= {name: fields.pop(name) for name in list(fields) if name in TASK}
    attempt = {
        "provider": "claude", "model": "m", "outcome": "succeeded", "latency_ms": 100,
        "number": number, "started_ms": START_MS, "usage": Usage(10, 5, 4, 3, 2),
        "cost": Cost(Decimal("0.000123"), "genai-prices", "1"),
    }  # fmt: skip
    return Attempt(**{**attempt, **fields}).row(task)


def abandoned(task_id: str = "t1", number: int = 1, **fields: Any) -> str:
    """The row of a call whose outcome is unknown."""
    lost = {"outcome": "failed", "error": "WorkerLost", "usage": Usage(), "cost": Cost()}
    return row(task_id, number, **{**lost, "latency_ms": 0, **fields})


def random_rows(number: int, seed: int, days: int = 3) -> list[str]:
    """Rows of all kinds, each of another task."""
    dice = random.Random(seed)
    made = []
    for i in range(number):
        outcome = dice.choice(["succeeded"] * 6 + ["failed", "rejected", "abandoned", "cached"])
        fields: dict[str, Any] = {
            "provider": dice.choice(["claude", "gpt"]),
            "role": dice.choice(["coder", "planner"]),
            "model": dice.choice(["m", "n"]),
            "started_ms": START_MS + dice.randrange(days * DAY_MS),
            "latency_ms": round(dice.lognormvariate(6, 1)),
            "queued_ms": dice.randrange(50),
            "place": dice.randrange(2),
            "metadata": {"team": dice.choice("ab"), "n": dice.randrange(3)},
        }
        if outcome == "succeeded":
            tokens = [dice.randrange(1000) for _ in range(5)]
            usd = Decimal(dice.randrange(10**6)) / 10**9
            cost = Cost(usd, "genai-prices", "1") if dice.random() < 0.9 else Cost(None, "unpriced")
            made.append(row(f"t{i}", usage=Usage(*tokens), cost=cost, **fields))
        elif outcome == "cached":
            nothing = Cost(Decimal(0))
            made.append(
                row(f"t{i}", **{**fields, "outcome": outcome, "usage": Usage(), "cost": nothing})
            )
        elif outcome == "abandoned":
            made.append(abandoned(f"t{i}", **fields))
        else:
            error = (
                dice.choice(["Overloaded", "RateLimited"]) if outcome == "failed" else "BreakerOpen"
            )
            more = {"usage": Usage(), "cost": Cost(), "outcome": outcome, "error": error}
            made.append(row(f"t{i}", **{**fields, **more}))
    return made


def parsed(rows: list[str]) -> list[dict[str, Any]]:
    """Read rows."""
    return [json.loads(each) for each in rows]

"""A row as it travels (JSON, as `Attempt.row` writes it), and as the database has it."""

import json
from decimal import Decimal
from typing import Any

import structlog

from tasks.ledger.tables import PICO, TOKENS

KEY = ("task_id", "attempt", "started_ms")
"""What a row is known by."""
NUMBERS = ("attempt", "started_ms", "latency_ms", "queued_ms", "failover")
NAMES = ("task_id", "role", "provider", "model", "outcome", "worker", "roles_version")
OPTIONAL = ("status", "first_token_ms", "price_source", "price_version", "request_id")
LONGEST = 255
LARGEST = 2**63 - 1

_log = structlog.get_logger("breakwater")

Row = dict[str, Any]


def read(line: str) -> Row | None:
    """Return the columns of a row; None, and a line in the log, if it is none."""
    try:
        given = json.loads(line)
        row: Row = {name: str(given[name])[:LONGEST] for name in NAMES}
        for name in NUMBERS:
            row[name] = _whole(given[name])
        for name in TOKENS:
            row[name] = None if given[name] is None else _whole(given[name])
        for name in OPTIONAL:
            row[name] = given.get(name)
        usd = given.get("cost_usd")
        row["cost_pico_usd"] = None if usd is None else round(Decimal(usd) * PICO)
        row["error"] = str(given.get("error") or "")[:LONGEST]
        row["why"] = str(given["why"])
        row["metadata"] = given.get("metadata") or {}
    except (ArithmeticError, KeyError, TypeError, ValueError) as fault:
        refused(fault)
        return None
    return row


def _whole(given: Any) -> int:
    return min(max(int(given), 0), LARGEST)


def refused(fault: Exception) -> None:
    """Log that a row cannot be kept."""
    _log.error("ledger.row_refused", error=type(fault).__name__)


def key_of(row: Any) -> tuple[Any, ...]:
    """Return what a row is known by."""
    return tuple(row[name] for name in KEY)

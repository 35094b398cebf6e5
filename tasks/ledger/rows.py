"""Rows of the ledger: JSON in Redis, as `Attempt.row` writes it, and columns in the database."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import structlog

from tasks.ledger.tables import PICO, TOKENS

KEY = ("task_id", "attempt", "started_ms")
"""Primary key."""
NUMBERS = ("attempt", "started_ms", "latency_ms", "queued_ms", "failover")
NAMES = ("task_id", "role", "provider", "model", "outcome", "worker", "roles_version")
OPTIONAL = ("status", "first_token_ms", "price_source", "price_version", "request_id")
MAX_CHARS = 255
MAX_INT = 2**63 - 1

_log = structlog.get_logger("breakwater")

Row = dict[str, Any]
"""Columns by name; JSON and SQL do not say which type a value has."""


def parse_row(text: str) -> Row | None:
    """Return the columns of a row; log and return None if the text is not a valid row."""
    try:
        return _columns(json.loads(text))
    except (ArithmeticError, KeyError, TypeError, ValueError) as fault:
        log_refused(fault)
        return None


def _columns(payload: Mapping[str, Any]) -> Row:
    row: Row = {name: str(payload[name])[:MAX_CHARS] for name in NAMES}
    row |= {name: _bounded(payload[name]) for name in NUMBERS}
    row |= {name: _count(payload[name]) for name in TOKENS}
    row |= {name: payload.get(name) for name in OPTIONAL}
    row["cost_pico_usd"] = _pico_usd(payload.get("cost_usd"))
    row["error"] = str(payload.get("error") or "")[:MAX_CHARS]
    row["why"] = str(payload["why"])
    row["metadata"] = payload.get("metadata") or {}
    return row


def _bounded(number: str | float) -> int:
    return min(max(int(number), 0), MAX_INT)


def _count(number: int | None) -> int | None:
    if number is None:
        return None
    return _bounded(number)


def _pico_usd(usd: str | None) -> int | None:
    if usd is None:
        return None
    return round(Decimal(usd) * PICO)


def log_refused(fault: Exception) -> None:
    """Log that a row cannot be stored."""
    _log.error("ledger.row_refused", error=type(fault).__name__)


def key_of(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the primary key of a row."""
    return tuple(row[name] for name in KEY)

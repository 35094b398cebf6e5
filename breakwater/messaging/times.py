"""
When a message is due, when it expires and how old it is, by Redis' clock alone.

A worker's host may be wrong about the time, and its clock may jump. So a take returns Redis' time
with the messages, and from there on the worker counts on its monotonic clock. Celery compares `eta`
and `expires` with the host's clock; both headers are restated in the host's time before Celery
reads them.

A countdown, and `expires` as a number, are spans: they run from the moment at which Redis stored
the message. An absolute `eta` or `expires` is compared with Redis' clock.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.utils.time import maybe_iso8601

HEADER = "breakwater"
"""The message's header for what is ours; the fields are ENQUEUED, COUNTDOWN and EXPIRES."""
ENQUEUED = "enqueued_ms"
"""When Redis stored the message, in ms of Redis' time."""
COUNTDOWN = "countdown_ms"
"""How long after that the message is due."""
EXPIRES = "expires_ms"
"""How long after that the message is no longer worth running."""
LONGEST_MS = 1000 * 365 * 24 * 3600 * 1000
"""A thousand years; datetimes end with the year 9999."""
TAKEN_AT = "taken_at"
"""A property: Redis' time at the take (ms), and the monotonic clock when the reply was read (s)."""
EXPIRES_AT = "expires_at"
"""A property: the monotonic time (s) at which the message expires; null: it does not."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Redis' time: read once, and counted on by the monotonic clock."""

    read_ms: int
    at_s: float

    def now_ms(self) -> int:
        """Return the time in ms since 1970."""
        return self.read_ms + round((time.monotonic() - self.at_s) * 1000)

    @classmethod
    def of(cls, properties: Mapping[str, Any] | None) -> "Clock":
        """Return the clock of a message that was taken; else the host's, as it is now."""
        if taken_at := (properties or {}).get(TAKEN_AT):
            return cls(*taken_at)
        return cls.host()

    @classmethod
    def host(cls) -> "Clock":
        """Return the host's own clock, read now."""
        return cls(time.time_ns() // 1_000_000, time.monotonic())


def enqueued_ms(headers: Mapping[str, Any] | None) -> int | None:
    """Return when a message was enqueued; None: another Celery client wrote it, and did not say."""
    at: Any = _own(headers).get(ENQUEUED)
    return at if isinstance(at, int) and at > 0 else None


def due_in_ms(fields: Mapping[str, Any], now_ms: int) -> int:
    """Return how long a message has to wait, given Redis' time; 0 if it is due."""
    return max(0, _left_ms(fields, COUNTDOWN, "eta", now_ms) or 0)


def restate(fields: dict[str, Any], now_ms: int) -> float | None:
    """
    Restate `eta` and `expires` by the host's clock, whatever it shows; Celery reads them next.

    Returns:
        The monotonic time (s) at which the message expires; None: it does not.
    """
    due_ms, expires_ms = due_in_ms(fields, now_ms), _left_ms(fields, EXPIRES, "expires", now_ms)
    if fields.get("eta") is not None:
        fields["eta"] = _host_time(due_ms) if due_ms else None
    if fields.get("expires") is not None and expires_ms is not None:
        fields["expires"] = _host_time(expires_ms)
    return None if expires_ms is None else time.monotonic() + expires_ms / 1000


def undelayed(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without its `eta`: it has waited, and is due whatever clocks show later."""
    headers = {**payload["headers"], "eta": None}
    if own := dict(_own(headers)):
        own.pop(COUNTDOWN, None)
        headers[HEADER] = own
    return {**payload, "headers": headers}


def _left_ms(fields: Mapping[str, Any], span: str, moment: str, now_ms: int) -> int | None:
    span_ms, since_ms = _own(fields).get(span), enqueued_ms(fields)
    if isinstance(span_ms, int) and since_ms:
        # The server's clock may have been set back since; nothing lasts longer than planned.
        return min(span_ms, since_ms + span_ms - now_ms)
    at_ms = _ms(fields.get(moment))
    return None if at_ms is None else at_ms - now_ms


def _own(fields: Mapping[str, Any] | None) -> Mapping[str, Any]:
    own = (fields or {}).get(HEADER)
    return own if isinstance(own, Mapping) else {}


def _ms(moment: Any) -> int | None:
    """Read an ISO 8601 time, UTC unless it says otherwise; None: there is none that can be read."""
    try:
        at = maybe_iso8601(moment)
        at_s: float = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        return round(at_s * 1000)
    except (AttributeError, TypeError, ValueError, OverflowError, OSError):
        return None


def _host_time(in_ms: int) -> str:
    return (datetime.now(UTC) + timedelta(milliseconds=min(in_ms, LONGEST_MS))).isoformat()

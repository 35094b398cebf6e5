"""
Calculate by Redis' clock when a message is due, when it expires, and how old it is.

A worker's host may have the wrong time, and its clock may jump. So a take returns Redis' time with
the messages, and the worker adds the time of its monotonic clock. Celery compares `eta` and
`expires` with the host's clock; both headers are converted to the host's time before Celery reads
them.

A countdown, and `expires` as a number, are durations: they run from the moment at which Redis
stored the message. An absolute `eta` or `expires` is compared with Redis' clock.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from celery.utils.time import maybe_iso8601

from breakwater.content import JsonObject

HEADER = "breakwater"
"""The header for our own fields: ENQUEUED, COUNTDOWN and EXPIRES."""
ENQUEUED = "enqueued_ms"
"""When Redis stored the message, in ms of Redis' time."""
COUNTDOWN = "countdown_ms"
"""The time from then until the message is due."""
EXPIRES = "expires_ms"
"""The time from then until the message expires."""
LONGEST_MS = 1000 * 365 * 24 * 3600 * 1000
"""A thousand years; datetimes end with the year 9999."""
TAKEN_AT = "taken_at"
"""A property: Redis' time at the take (ms), and the monotonic time when the reply was read (s)."""
EXPIRES_AT = "expires_at"
"""A property: the monotonic time (s) at which the message expires; null: never."""


Fields = Mapping[str, object]
"""The headers of a message; any client may have written them."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Redis' time: read once, then advanced by the monotonic clock."""

    read_ms: int
    at_s: float

    def now_ms(self) -> int:
        """Return the time in ms since 1970."""
        return self.read_ms + round((time.monotonic() - self.at_s) * 1000)

    @classmethod
    def of(cls, properties: Mapping[str, object] | None) -> "Clock":
        """Return the clock of a message that was taken; else the host's clock, read now."""
        if taken_at := (properties or {}).get(TAKEN_AT):
            return cls(*cast("tuple[int, float]", taken_at))
        return cls.host()

    @classmethod
    def host(cls) -> "Clock":
        """Return the host's own clock, read now."""
        return cls(time.time_ns() // 1_000_000, time.monotonic())


def enqueued_ms(headers: Fields | None) -> int | None:
    """Return when a message was enqueued; None: another Celery client wrote it without the time."""
    at = _own(headers).get(ENQUEUED)
    if isinstance(at, int) and at > 0:
        return at
    return None


def due_in_ms(fields: Fields, now_ms: int) -> int:
    """Return how long a message must wait, by Redis' time; 0 if it is due."""
    return max(0, _left_ms(fields, COUNTDOWN, "eta", now_ms) or 0)


def restate(fields: dict[str, object], now_ms: int) -> float | None:
    """
    Convert `eta` and `expires` to times of the host's clock, with which Celery compares them.

    Returns:
        The monotonic time (s) at which the message expires; None: never.
    """
    due_ms, expires_ms = due_in_ms(fields, now_ms), _left_ms(fields, EXPIRES, "expires", now_ms)
    if fields.get("eta") is not None:
        fields["eta"] = None
        if due_ms:
            fields["eta"] = _host_time(due_ms)
    if fields.get("expires") is not None and expires_ms is not None:
        fields["expires"] = _host_time(expires_ms)
    if expires_ms is None:
        return None
    return time.monotonic() + expires_ms / 1000


def undelayed(payload: JsonObject) -> JsonObject:
    """Return a message without `eta`: it has waited, and stays due whatever clocks show later."""
    headers = {**payload["headers"], "eta": None}
    if own := dict(_own(headers)):
        own.pop(COUNTDOWN, None)
        headers[HEADER] = own
    return {**payload, "headers": headers}


def _left_ms(fields: Fields, span: str, moment: str, now_ms: int) -> int | None:
    span_ms, since_ms = _own(fields).get(span), enqueued_ms(fields)
    if isinstance(span_ms, int) and since_ms:
        # The server's clock may have been set back since; no duration grows by that.
        return min(span_ms, since_ms + span_ms - now_ms)
    at_ms = _ms(fields.get(moment))
    if at_ms is None:
        return None
    return at_ms - now_ms


def _own(fields: Fields | None) -> Fields:
    own = (fields or {}).get(HEADER)
    if isinstance(own, Mapping):
        return own
    return {}


def _ms(moment: object) -> int | None:
    """Read an ISO 8601 time, UTC unless it has a zone; None if it is missing or cannot be read."""
    try:
        at = maybe_iso8601(moment)
        if not at.tzinfo:
            at = at.replace(tzinfo=UTC)
        at_s: float = at.timestamp()
        return round(at_s * 1000)
    except (AttributeError, TypeError, ValueError, OverflowError, OSError):
        return None


def _host_time(in_ms: int) -> str:
    return (datetime.now(UTC) + timedelta(milliseconds=min(in_ms, LONGEST_MS))).isoformat()

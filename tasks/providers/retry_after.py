"""
How long a vendor asks to be left alone, in every form in which they say it.

RFC 9110 §10.2.3 has seconds and an HTTP date; vendors add fractions, milliseconds in headers of
their own (OpenAI and Anthropic `retry-after-ms`, Azure `x-ms-retry-after-ms`), and Google a
`google.rpc.RetryInfo` in the error's body.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

LONGEST_S = 86_400.0
"""A day. More is not believed, and ignored like what is negative or no number."""


def retry_after_s(headers: Mapping[str, str], body: object) -> float | None:
    """
    Read the wait from an error's headers and JSON body; the most exact form counts.

    Returns:
        Seconds from now, more than 0; None if the vendor asks for no wait, or for a senseless one.
    """
    # A date is taken against the answer's own Date, so that our clock does not matter.
    now = _date(headers.get("date")) or time.time()
    at = _date(headers.get("retry-after"))
    said = (
        _number(headers.get("retry-after-ms"), 1000),
        _number(headers.get("x-ms-retry-after-ms"), 1000),
        _number(headers.get("retry-after")),
        None if at is None else at - now,
        *(_number(delay.removesuffix("s")) for delay in _retry_delays(body)),
    )
    return next((wait for wait in said if wait is not None and 0 < wait <= LONGEST_S), None)


def _number(text: str | None, per_second: float = 1) -> float | None:
    try:
        return None if text is None else float(text) / per_second
    except ValueError:
        return None


def _date(text: str | None) -> float | None:
    """Return the epoch seconds of an HTTP date, None if it is none."""
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return _utc(date).timestamp()


def _utc(date: datetime) -> datetime:
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _retry_delays(body: Any) -> Iterator[str]:
    details = body["error"].get("details") if _has_error(body) else None
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str):
            yield delay


def _has_error(body: object) -> bool:
    return isinstance(body, dict) and isinstance(body.get("error"), dict)

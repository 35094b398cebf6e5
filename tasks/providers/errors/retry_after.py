"""
Read how long a vendor asks callers to wait, in every form that vendors use.

RFC 9110 §10.2.3 has seconds and an HTTP date. Vendors add fractions, milliseconds in headers of
their own (OpenAI and Anthropic `retry-after-ms`, Azure `x-ms-retry-after-ms`), and Google a
`google.rpc.RetryInfo` in the error's body.
"""

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from tasks.providers.errors.bodies import ErrorBody, read_error

MAX_WAIT_S = 86_400.0
"""A day. A longer wait is ignored; so is one that is negative or not a number."""
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
MAX_HEADER = 64
"""Characters of a date; a longer one is not read."""


def retry_after_s(headers: Mapping[str, str], body: object) -> float | None:
    """
    Read the wait from an error's headers and its body; of several forms the most exact one counts.

    Returns:
        Seconds from now, more than 0; None if the vendor asks for no wait, or for an absurd one.
    """
    if not isinstance(body, ErrorBody):
        body = read_error(body)
    waits = (
        _number(headers.get("retry-after-ms"), 1000),
        _number(headers.get("x-ms-retry-after-ms"), 1000),
        _number(headers.get("retry-after")),
        _until(headers.get("retry-after"), headers.get("date")),
        *(_number(delay.removesuffix("s")) for delay in body.delays),
    )
    return next((wait for wait in waits if wait is not None and 0 < wait <= MAX_WAIT_S), None)


def _until(text: str | None, answered: str | None) -> float | None:
    """Return the seconds until a date, from the answer's own date: our clock does not matter."""
    at = _date(text)
    if at is None:
        return None
    return at - (_date(answered) or time.time())


def _number(text: str | None, per_second: float = 1) -> float | None:
    if text is None or not _SECONDS.fullmatch(text.strip()):
        return None
    return float(text) / per_second


def _date(text: str | None) -> float | None:
    """Return the epoch seconds of an HTTP date; None for another text."""
    if not text or len(text) > MAX_HEADER:
        return None
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return date.timestamp()
    except (ValueError, OverflowError, TypeError, IndexError, OSError):
        return None

"""
How long a vendor asks to be left alone, in every form in which they say it.

RFC 9110 §10.2.3 has seconds and an HTTP date; vendors add fractions, milliseconds in headers of
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
"""A day. A longer wait is ignored, like a negative one or one that is not a number."""
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
MAX_HEADER = 64
"""Characters of a date; a longer one is not read."""


def retry_after_s(headers: Mapping[str, str], body: object) -> float | None:
    """
    Read the wait from an error's headers and its body, in any form; the most exact one counts.

    Returns:
        Seconds from now, more than 0; None if the vendor asks for no wait, or for a senseless one.
    """
    error_body = body if isinstance(body, ErrorBody) else read_error(body)
    # A date is taken against the answer's own Date, so that our clock does not matter.
    now = _date(headers.get("date")) or time.time()
    at = _date(headers.get("retry-after"))
    waits = (
        _number(headers.get("retry-after-ms"), 1000),
        _number(headers.get("x-ms-retry-after-ms"), 1000),
        _number(headers.get("retry-after")),
        None if at is None else at - now,
        *(_number(delay.removesuffix("s")) for delay in error_body.delays),
    )
    return next((wait for wait in waits if wait is not None and 0 < wait <= MAX_WAIT_S), None)


def _number(text: str | None, per_second: float = 1) -> float | None:
    if text is None or not _SECONDS.fullmatch(text.strip()):
        return None
    return float(text) / per_second


def _date(text: str | None) -> float | None:
    """Return the epoch seconds of an HTTP date, None if it is not one."""
    if not text or len(text) > MAX_HEADER:
        return None
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError, OSError):
        return None

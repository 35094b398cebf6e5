"""
A time limit for a whole answer of Redis.

redis-py's `socket_timeout` is per piece that arrives: an answer that trickles in, byte by byte,
outlives it (5 s at 50 ms a byte, where 0.1 s was asked for).
"""

import time
from typing import Any

from redis.connection import DefaultParser


class TotalTimeoutParser(DefaultParser):  # type: ignore[misc, valid-type]
    """redis-py's parser, whose timeout counts from the first piece waited for to the last."""

    _ends_at: float | None = None

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read one answer."""
        if timeout_s := getattr(self, "_socket_timeout", None):  # hiredis; the slow parser has none
            self._ends_at = time.monotonic() + timeout_s
        return super().read_response(*args, **kwargs)

    def read_from_socket(self, timeout: Any = None, raise_on_timeout: bool = True) -> Any:
        """Read a piece, in what is left of the time."""
        if self._ends_at is None:
            return super().read_from_socket(raise_on_timeout=raise_on_timeout)
        left_s = max(self._ends_at - time.monotonic(), 0.001)
        return super().read_from_socket(timeout=left_s, raise_on_timeout=raise_on_timeout)

"""
A time limit for a whole reply of Redis.

redis-py's `socket_timeout` starts again with each piece that arrives. A reply that trickles in byte
by byte outlives it: 5 s at 50 ms a byte, with a timeout of 0.1 s.
"""

import time
from typing import Any

from redis.connection import DefaultParser


class TotalTimeoutParser(DefaultParser):  # type: ignore[misc, valid-type]
    """redis-py's parser, with one timeout from the wait for the first piece to the last piece."""

    _ends_at: float | None = None

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read one reply."""
        if timeout_s := getattr(self, "_socket_timeout", None):  # only hiredis's parser has it
            self._ends_at = time.monotonic() + timeout_s
        return super().read_response(*args, **kwargs)

    def read_from_socket(self, timeout: Any = None, raise_on_timeout: bool = True) -> Any:
        """Read a piece within the time that is left."""
        if self._ends_at is None:
            return super().read_from_socket(raise_on_timeout=raise_on_timeout)
        left_s = max(self._ends_at - time.monotonic(), 0.001)
        return super().read_from_socket(timeout=left_s, raise_on_timeout=raise_on_timeout)

"""
Per-thread limits of provider calls, besides their total timeout.

The transport reads them when a call begins: a hook to run before the first byte is sent, the
timeouts of a stream, and the attempt that the call belongs to.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from breakwater.errors import ProviderTimeout


class StreamTimeouts:
    """
    When the next token of a streamed call is due; the reader of the stream moves the deadline.

    Args:
        first_s: Seconds from the call's start to its first token; None: only the call's total
            timeout applies.
        between_s: Seconds between two tokens; None: as above.
    """

    def __init__(self, first_s: float | None, between_s: float | None) -> None:
        self._limit_s = first_s
        self._between_s = between_s
        self.due_at = math.inf

    def start(self) -> None:
        """Start waiting for the first token; the transport calls this."""
        self._set_deadline()

    def token_received(self) -> None:
        """Start waiting for the next token."""
        self._limit_s = self._between_s
        self._set_deadline()

    def end_within(self, seconds: float) -> None:
        """Give the rest of the stream this many seconds, whatever it brings."""
        self.due_at = time.monotonic() + seconds

    def raise_if_late(self) -> None:
        """Raise ProviderTimeout if a token is overdue."""
        if time.monotonic() >= self.due_at:
            raise ProviderTimeout(f"no token within {self._limit_s} s")

    def _set_deadline(self) -> None:
        if self._limit_s is None:
            self.due_at = math.inf
        else:
            self.due_at = time.monotonic() + self._limit_s


class RunningAttempt:
    """An attempt whose calls another thread may abort."""

    __slots__ = ("aborted",)

    def __init__(self) -> None:
        self.aborted = False
        """Calls of this attempt that start later fail as well."""


class _CallLimits(threading.local):
    """The limits of this thread's next calls."""

    before_sending: Callable[[], None] | None = None
    timeouts: StreamTimeouts | None = None
    attempt: RunningAttempt | None = None


current = _CallLimits()
running: dict[tuple[str, int], RunningAttempt] = {}
"""The attempts of this process that run now, by task id and attempt number."""
os.register_at_fork(after_in_child=running.clear)


@contextmanager
def call_limits(
    before_sending: Callable[[], None] | None, timeouts: StreamTimeouts | None = None
) -> Iterator[None]:
    """
    Set the limits of the calls that this thread makes inside the block.

    Args:
        before_sending: Called once, right before a request's first byte is sent; the request is
            not sent if it raises.
        timeouts: When a stream's tokens are due; None: only the call's total timeout applies.
    """
    outer = current.before_sending, current.timeouts
    current.before_sending, current.timeouts = before_sending, timeouts
    try:
        yield
    finally:
        current.before_sending, current.timeouts = outer


class abortable_as:  # noqa: N801 - used like a function; a generator costs each call 1 µs more
    """
    Let `transport.abort_attempt` end the calls that this thread makes inside the block.

    Args:
        task_id: The task's id.
        number: The attempt's number within its task.
    """

    __slots__ = ("_key", "_outer")

    def __init__(self, task_id: str, number: int) -> None:
        self._key = task_id, number

    def __enter__(self) -> None:
        """Register the attempt."""
        self._outer = current.attempt
        running[self._key] = current.attempt = RunningAttempt()

    def __exit__(self, *_: object) -> None:
        """Remove the attempt."""
        current.attempt = self._outer
        running.pop(self._key, None)

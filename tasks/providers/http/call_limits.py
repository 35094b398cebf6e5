"""What a thread's calls are held to beside their total time; the transport reads it."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from breakwater.errors import ProviderTimeout


class Pace:
    """
    When a streamed call has to be heard of next; whoever reads the stream moves it.

    Args:
        first_s: How long after the call's begin; None: no bound but the whole call's.
        between_s: How long after each `heard`; None likewise.
    """

    def __init__(self, first_s: float | None, between_s: float | None) -> None:
        self._within_s = first_s
        self._between_s = between_s
        self.due_at = math.inf

    def begin(self) -> None:
        """Start the clock; the transport does."""
        self._wait()

    def heard(self) -> None:
        """Wait for the next sign of life from now on."""
        self._within_s = self._between_s
        self._wait()

    def linger(self, seconds: float) -> None:
        """Wait so long for what is left, and no longer."""
        self.due_at = time.monotonic() + seconds

    def raise_if_late(self) -> None:
        """Raise ProviderTimeout if a sign of life is overdue."""
        if time.monotonic() >= self.due_at:
            raise ProviderTimeout(f"no token within {self._within_s} s")

    def _wait(self) -> None:
        self.due_at = math.inf if self._within_s is None else time.monotonic() + self._within_s


class _Terms(threading.local):
    """What this thread's next calls are held to."""

    before_sending: Callable[[], None] | None = None
    pace: Pace | None = None
    attempt: tuple[str, int] | None = None
    """The task's id and the attempt's number, by which another thread can abort the call."""


current = _Terms()


@contextmanager
def terms(before_sending: Callable[[], None] | None, pace: Pace | None = None) -> Iterator[None]:
    """
    Hold this thread's calls to terms of their own.

    Args:
        before_sending: Taken right before a request goes out; it may refuse.
        pace: How fast a stream has to come; None: within the call's time.
    """
    outer = current.before_sending, current.pace
    current.before_sending, current.pace = before_sending, pace
    try:
        yield
    finally:
        current.before_sending, current.pace = outer


class abortable_as:  # noqa: N801 - a context manager; a generator would cost each call 1 µs more
    """Let `transport.abort_attempt` end the calls that this thread makes within."""

    __slots__ = ("_attempt", "_outer")

    def __init__(self, task_id: str, number: int) -> None:
        self._attempt = task_id, number

    def __enter__(self) -> None:
        """Name the attempt."""
        self._outer, current.attempt = current.attempt, self._attempt

    def __exit__(self, *_: object) -> None:
        """Return to the name of before."""
        current.attempt = self._outer

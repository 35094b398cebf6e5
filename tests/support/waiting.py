"""Waiting for a condition with a deadline, in place of sleeping and hoping."""

import time
from collections.abc import Callable


def wait_until(true: Callable[[], bool], within_s: float = 20) -> None:
    """
    Return as soon as the condition is true.

    Raises:
        AssertionError: If it is not within that many seconds.
    """
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not true within {within_s} s"
        time.sleep(0.01)

"""Waiting for a condition: limits only end what hangs, on a machine that is slow and busy too."""

import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 180.0
"""A shorter limit that a test names is taken as this one: a machine may be slow at any moment."""


def wait_for(
    condition: Callable[[], Any],
    within_s: float = LIMIT_S,
    explain: Callable[[], object] = lambda: "",
) -> Any:
    """Wait until the condition holds and return what it returned; fail after the deadline."""
    deadline = time.monotonic() + max(within_s, LIMIT_S)
    while not (seen := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {max(within_s, LIMIT_S)} s in vain\n{explain()}")
        time.sleep(0.02)
    return seen


def wait_until(true: Callable[[], bool], within_s: float = LIMIT_S) -> None:
    """Wait until the condition is true; fail after the deadline."""
    wait_for(true, within_s)

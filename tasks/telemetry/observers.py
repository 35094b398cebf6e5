"""
Who is told what happens to tasks: counters, for one.

Nobody is, unless a worker adds somebody at start; an observer's error changes nothing.
"""

from collections.abc import Callable
from typing import Any, Literal

import pybreaker
import structlog

from breaker.listener import StateSnapshot
from breakwater.attempt import Attempt

State = Literal["succeeded", "failed"]

of_attempts: list[Callable[[str, Attempt], object]] = []
"""Told the role and an attempt that is over."""
of_results: list[Callable[[str, State, float], object]] = []
"""Told the role (empty if it is not known), how a task was settled, and the seconds it took from
`delay()` on."""
of_transitions: list[Callable[[str, str, str], object]] = []
"""Told a breaker's name, its state before and after, of each transition this process made."""

_log = structlog.get_logger("breakwater")


def attempted(role: str, attempt: Attempt) -> None:
    """Tell of an attempt."""
    _tell(of_attempts, role, attempt)


def settled(role: str, state: State, duration_s: float) -> None:
    """Tell of a task that has its result."""
    _tell(of_results, role, state, duration_s)


class Transitions(pybreaker.CircuitBreakerListener):
    """Tell of what the breakers tell."""

    def state_change(  # type: ignore[override] # our breakers tell StateSnapshot only
        self, cb: pybreaker.CircuitBreaker, old_state: StateSnapshot, new_state: StateSnapshot
    ) -> None:
        """Tell of one transition."""
        _tell(of_transitions, cb.name, old_state.name, new_state.name)


TRANSITIONS = Transitions()


def _tell(whom: list[Callable[..., object]], *what: Any) -> None:
    for tell in whom:
        try:
            tell(*what)
        except Exception as error:  # noqa: BLE001 - the answer is paid for; a full disk, say
            _log.error("observer.failed", error=type(error).__name__)

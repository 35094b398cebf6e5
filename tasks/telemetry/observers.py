"""
Observers of settled tasks and of breaker transitions: the metrics, for example.

There are none until a worker adds them when it starts. An observer's error is logged and changes
nothing.
"""

from collections.abc import Callable
from typing import Literal, ParamSpec

import pybreaker
import structlog

from breaker.listener import StateSnapshot

State = Literal["succeeded", "failed"]
P = ParamSpec("P")

of_results: list[Callable[[str, State, float], object]] = []
"""
Called for each settled task.

Arguments: the role (empty if it is not known), the state, and the seconds since `delay()`.
"""
of_transitions: list[Callable[[str, str, str], object]] = []
"""Called for each transition that this process made: the breaker's name, the states around it."""

_log = structlog.get_logger("breakwater")


def settled(role: str, state: State, duration_s: float) -> None:
    """Notify the observers of a task that has its result."""
    _notify(of_results, role, state, duration_s)


class Transitions(pybreaker.CircuitBreakerListener):
    """Passes the breakers' transitions on to the observers."""

    def state_change(  # type: ignore[override] # our breakers pass StateSnapshot only
        self, cb: pybreaker.CircuitBreaker, old_state: StateSnapshot, new_state: StateSnapshot
    ) -> None:
        """Notify the observers of one transition."""
        _notify(of_transitions, cb.name or "", old_state.name, new_state.name)


TRANSITIONS = Transitions()


def _notify(observers: list[Callable[P, object]], *args: P.args, **kwargs: P.kwargs) -> None:
    for observer in observers:
        try:
            observer(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the answer is paid for; a full disk, say
            _log.error("observer.failed", error=type(error).__name__)

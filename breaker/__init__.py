"""
Circuit breakers shared by a fleet through Redis, with pybreaker's interface.

    from breaker import get_circuit_breaker

    claude = get_circuit_breaker("claude", fail_max=5, reset_timeout=30, success_threshold=2)
    answer = claude.call(ask, prompt)

The package depends on Redis and pybreaker; it has no roles, prompts or task queues. docs/breaker.md
has the keys, the invariants and the differences from pybreaker.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from breaker.circuit import BreakerOpen, Permit, SharedCircuitBreaker
    from breaker.fleet import Breakers, get_circuit_breaker, reset_all_breakers
    from breaker.state import BreakerState, Rules

__all__ = [
    "BreakerOpen",
    "BreakerState",
    "Breakers",
    "Permit",
    "Rules",
    "SharedCircuitBreaker",
    "get_circuit_breaker",
    "reset_all_breakers",
]

_WHERE = {
    "BreakerOpen": "breaker.circuit",
    "BreakerState": "breaker.state",
    "Breakers": "breaker.fleet",
    "Permit": "breaker.circuit",
    "Rules": "breaker.state",
    "SharedCircuitBreaker": "breaker.circuit",
    "get_circuit_breaker": "breaker.fleet",
    "reset_all_breakers": "breaker.fleet",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are used: the state machine alone needs no structlog."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value

"""
Circuit breakers shared by a fleet through Redis, with pybreaker's interface.

    from breaker import get_circuit_breaker

    claude = get_circuit_breaker("claude", fail_max=5, reset_timeout=30, success_threshold=2)
    answer = claude.call(ask, prompt)

Knows Redis and pybreaker, nothing of roles, prompts or task queues. docs/breaker.md has the keys,
the invariants and the differences from pybreaker.
"""

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

"""Log the transitions that this process makes; the event stream in Redis has those of all."""

import pybreaker
import structlog

from breaker.state import BreakerState

log = structlog.get_logger("breaker")


class StateSnapshot(pybreaker.CircuitBreakerState):
    """
    A state as pybreaker's listeners receive it, with the view of the breaker.

    Args:
        breaker: The breaker.
        name: closed, open or half-open.
        view: The state of the breaker after the transition.
    """

    def __init__(self, breaker: pybreaker.CircuitBreaker, name: str, view: BreakerState) -> None:
        super().__init__(breaker, name)
        self.view = view


class TransitionLog(pybreaker.CircuitBreakerListener):
    """Log each transition: a warning when a breaker opens, else an info."""

    def state_change(  # type: ignore[override] # our breakers pass StateSnapshot only
        self, cb: pybreaker.CircuitBreaker, old_state: StateSnapshot, new_state: StateSnapshot
    ) -> None:
        """Log one transition."""
        view = new_state.view
        write = log.info
        if new_state.name == pybreaker.STATE_OPEN:
            write = log.warning
        write(
            "breaker.transition",
            breaker=cb.name,
            before=old_state.name,
            after=new_state.name,
            reason=view.reason,
            failures=view.failures,
            trips=view.trips,
            open_for_s=view.open_for_s,
            generation=view.generation,
            source=view.source,
        )

"""Say in the log which transitions this process made; the event stream has everybody's."""

import pybreaker
import structlog

from breaker.state import BreakerState

log = structlog.get_logger("breaker")


class StateSnapshot(pybreaker.CircuitBreakerState):
    """
    A state as pybreaker's listeners get it, with what was seen of it.

    Args:
        breaker: The breaker.
        name: closed, open or half-open.
        view: How the breaker stood after the transition.
    """

    def __init__(self, breaker: pybreaker.CircuitBreaker, name: str, view: BreakerState) -> None:
        super().__init__(breaker, name)
        self.view = view


class TransitionLog(pybreaker.CircuitBreakerListener):
    """Log each transition: a warning when a breaker opens, else an info."""

    def state_change(  # type: ignore[override] # our breakers tell StateSnapshot only
        self, cb: pybreaker.CircuitBreaker, old_state: StateSnapshot, new_state: StateSnapshot
    ) -> None:
        """Log one transition."""
        view = new_state.view
        write = log.warning if new_state.name == pybreaker.STATE_OPEN else log.info
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

"""How long a task waits in Redis before it is tried again."""

import random

import structlog

from breakwater.errors import HostFault
from tasks.admission.parking import Parking
from tasks.answering.walk import NothingAvailable
from tasks.config import Role
from tasks.delivery.waits import Delay, Park

MAX_WAIT_S = 60.0
"""A waiting task is tried again at least this often."""

log = structlog.get_logger("breakwater")


def wait_for_target(
    role: Role, nothing: NothingAvailable, parking: Parking, tries: int, left_s: float
) -> Delay | Park | None:
    """
    Choose how a task waits until a target may be called again.

    Args:
        role: Its chain was walked.
        nothing: Why no target could serve.
        parking: Knows whether the role's whole queue has to wait.
        tries: How many walks of the chain the task has behind it.
        left_s: Seconds until the task's deadline.

    Returns:
        None: no target may be called before the deadline.
    """
    closed_s, why = parking.closed_for(role)
    if max(closed_s, nothing.wait_s) >= left_s:
        return None
    if closed_s:
        return Park(round(closed_s * 1000), why, parking.trial_count(role))
    return delay(nothing.wait_s, tries, left_s)


def delay(at_least_s: float, tries: int, left_s: float) -> Delay:
    """Return a wait with jitter that grows with every try and ends before the deadline."""
    wait_s = at_least_s + _jitter_s(tries, left_s - at_least_s)
    return Delay(round(wait_s * 1000) + 1)


def log_host_faults(task_id: str, role: Role, nothing: NothingAvailable) -> None:
    """Log an error if no target can be called from this host."""
    if {attempt.error for attempt in nothing.attempts} != {HostFault.__name__}:
        return
    why = "; ".join(dict.fromkeys(attempt.why for attempt in nothing.attempts))
    log.error("host_cannot_call", task_id=task_id, role=role.name, why=why)


def _jitter_s(tries: int, at_most_s: float) -> float:
    """
    Draw a wait between nothing and a bound that doubles with every try.

    Full jitter keeps a thousand waiting tasks from returning at once.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0, min(MAX_WAIT_S, 2.0 ** min(tries, 6), max(at_most_s, 0)))

"""How a task waits in Redis: alone for a delay, or with its whole queue parked."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delay:
    """The task waits outside its queue for `ms`; with 0 it returns to the head of the queue."""

    ms: int = 0


@dataclass(frozen=True, slots=True)
class Park:
    """
    The task returns to the head of its queue, and no worker takes from that queue.

    Attributes:
        ms: How long the queue is parked.
        reason: Why, in words.
        trial_count: How many tasks workers take afterwards, to find out whether a target is back.
    """

    ms: int
    reason: str = ""
    trial_count: int = 1

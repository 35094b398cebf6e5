"""
Faults of the worker itself: it requeues a valid message that it cannot run, and pauses.

The host may have no more threads, files or memory; a timer, a signal receiver or the pool may fail.
The next message would fail as well if the worker tried it at once. And if the worker called such a
message invalid, a good prompt would be lost.
"""

import random
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

FIRST_REST_S, MAX_REST_S = 1.0, 30.0
CALM_S = 60.0
"""After this time without a fault the next pause is a short one again."""
MAX_FAULTS = 5
"""After this many faults, with other messages run in between, the message is at fault itself."""
MAX_REMEMBERED = 100
HOST_ERRORS = (MemoryError, OSError, RuntimeError)
"""Errors of a host without threads, files or memory; never a message's fault."""

_log = structlog.get_logger("breakwater")


class Rest:
    """
    A pause in which the worker takes no messages.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = self._last = 0.0
        self._for_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the worker takes nothing now."""
        return self._clock() < self._until

    def begin(self, fault: BaseException) -> None:
        """Start a pause, longer after each fault; log the reason once for each pause."""
        now = self._clock()
        if now < self._until:
            return
        if now - self._last > CALM_S:
            self._for_s = 0.0
        self._for_s = min(max(self._for_s * 2, FIRST_REST_S), MAX_REST_S)
        rest_s = self._for_s * random.uniform(0.8, 1.2)  # else all workers of a host resume at once
        self._until = self._last = now + rest_s
        _log.error(
            "worker.cannot_run",
            error=type(fault).__name__,
            why=_why(fault),
            what="its messages go back to their queues, and it takes none for a while",
            rest_s=round(rest_s, 1),
        )


class FailedMessages:
    """Counts faults of messages while others run: then the fault is in the message."""

    def __init__(self) -> None:
        self._passed = 0
        self._faults: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def passed(self) -> None:
        """Record that a message was handed over."""
        self._passed += 1

    def failed(self, task_id: str) -> int:
        """Record a fault of a message; return how many it had, with others running in between."""
        count, passed = self._faults.pop(task_id, (0, -1))
        if self._passed > passed:
            count += 1
        self._faults[task_id] = count, self._passed
        if len(self._faults) > MAX_REMEMBERED:
            self._faults.popitem(last=False)
        return count

    def has_failed(self, task_id: str) -> bool:
        """Return whether this message has failed before."""
        return task_id in self._faults


def _why(fault: BaseException) -> str:
    """Return the text of a host's error; the texts of other errors may quote the message."""
    if isinstance(fault, HOST_ERRORS):
        return str(fault)[:200]
    return ""

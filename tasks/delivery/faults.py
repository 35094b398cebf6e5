"""
What a worker does when it cannot run a message that nothing is wrong with: give it back, and rest.

No thread can be started, no file opened, no memory had; a timer, a signal's receiver or the pool
itself fails. To try the next message at once would only fail as well, and calling such a message
invalid would lose a good prompt.
"""

import random
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

FIRST_REST_S, MAX_REST_S = 1.0, 30.0
CALM_S = 60.0
"""After so long without a fault the next rest is a short one again."""
MAX_FAULTS = 5
"""Faults of one message, with others passing in between, after which it is at fault itself."""
MAX_REMEMBERED = 100
HOST_ERRORS = (MemoryError, OSError, RuntimeError)
"""What a host without threads, files or memory raises; never a message's fault."""

_log = structlog.get_logger("breakwater")


class Rest:
    """
    Whether this worker takes messages now.

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
        """Take nothing for a while, longer after each fault; say why in the log, once a rest."""
        now = self._clock()
        if now < self._until:
            return
        if now - self._last > CALM_S:
            self._for_s = 0.0
        self._for_s = min(max(self._for_s * 2, FIRST_REST_S), MAX_REST_S)
        rest_s = self._for_s * random.uniform(0.8, 1.2)  # or all of a host come back at once
        self._until = self._last = now + rest_s
        _log.error(
            "worker.cannot_run",
            error=type(fault).__name__,
            why=_why(fault),
            what="its messages go back to their queues, and it takes none for a while",
            rest_s=round(rest_s, 1),
        )


class FailedMessages:
    """Messages that fail although others pass: what is wrong is in them after all."""

    def __init__(self) -> None:
        self._passed = 0
        self._faults: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def passed(self) -> None:
        """Note that a message went its way."""
        self._passed += 1

    def failed(self, task_id: str) -> int:
        """Note that this one did not; return how often so far, with others passing in between."""
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
    """Return the words of an error of the host's; others may quote the message."""
    return str(fault)[:200] if isinstance(fault, HOST_ERRORS) else ""

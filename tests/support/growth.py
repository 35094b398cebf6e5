"""Whether a function's time grows with its input, or with its square."""

import time
from collections.abc import Callable

FROM, FACTOR = 1_000, 32
BARELY_S = 0.05
"""What takes less is not measured: it is fast enough, and the clock too coarse."""


def grows_no_faster_than_its_input(run: Callable[[int], object]) -> bool:
    """
    Compare the CPU time of a size with that of 32 times the size.

    A square takes 1,024 times as long, what is linear 32 times; the bound lies far from both, and
    the best of several runs counts, so that a busy machine changes nothing.
    """
    if _best(run, FROM * FACTOR, times=1) <= BARELY_S:
        return True
    return _best(run, FROM * FACTOR) <= BARELY_S + _best(run, FROM) * FACTOR * 8


def _best(run: Callable[[int], object], size: int, times: int = 3) -> float:
    best = float("inf")
    for _ in range(times):
        began = time.thread_time()
        run(size)
        best = min(best, time.thread_time() - began)
    return best

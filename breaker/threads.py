"""Threads that work in the background of a process, and hosts that have none left to start."""

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger("breaker")
_refused: set[str] = set()


def start(target: Callable[..., None], name: str, *args: object) -> threading.Thread | None:
    """
    Start a daemon thread.

    Returns:
        The thread; None if this host can start none now: whoever needs it next tries again. That is
        no reason to fail a call, which may have been paid. It is logged once for each name.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as fault:
        if name not in _refused:
            _refused.add(name)
            log.warning("thread.refused", thread=name, why=str(fault))
        return None
    _refused.discard(name)
    return thread

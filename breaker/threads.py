"""Start background threads, also on a host that has no thread left."""

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger("breaker")
_refused: set[str] = set()


def start(target: Callable[..., None], name: str, *args: object) -> threading.Thread | None:
    """
    Start a daemon thread.

    Returns:
        The thread; None if this host cannot start one now. No call fails for that, as it may have
        been paid for: the next use tries again. The log shows the failure once for each name.
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

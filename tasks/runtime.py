"""
What one process needs to serve tasks: settings, breakers, providers.

Built on first use and again after a fork: a client used before a fork gave one process another
process's answer.
"""

import os
import threading

from breaker import Breakers
from tasks.config import Settings, load_settings
from tasks.providers.registry import Registry
from tasks.queue import redis_url


class Runtime:
    """Settings, breakers and providers, wired together."""

    def __init__(self, settings: Settings, breakers: Breakers) -> None:
        self.settings = settings
        self.breakers = breakers
        self.registry = Registry(settings, breakers)

    def close(self) -> None:
        """Close every connection; running calls end as Cancelled."""
        self.registry.close()
        self.breakers.close()


_lock = threading.Lock()
_built: dict[int, Runtime] = {}  # by pid, so that a child never uses its parent's
_settings: Settings | None = None


def use_settings(settings: Settings) -> None:
    """Serve with these settings; the worker checks them once at start, before any fork."""
    global _settings  # noqa: PLW0603 - one process serves one roles file
    _settings = settings


def runtime() -> Runtime:
    """
    Return this process's runtime.

    Raises:
        ConfigError: There are no valid settings.
    """
    if (built := _built.get(os.getpid())) is not None:
        return built
    with _lock:
        pid = os.getpid()
        if pid not in _built:
            settings = _settings or load_settings()
            _built[pid] = Runtime(settings, Breakers.from_url(redis_url()))
        return _built[pid]


def close() -> None:
    """Close this process's runtime, if it has one."""
    if (built := _built.pop(os.getpid(), None)) is not None:
        built.close()

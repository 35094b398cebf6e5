"""
What one process needs to serve tasks: settings, breakers, providers.

Built on first use and again after a fork: a client used before a fork gave one process another
process's answer.
"""

import os
import threading

import redis

from breaker import Breakers
from tasks.config import Settings, load_settings
from tasks.connection import client, redis_url
from tasks.delivery.keeper import Keeper
from tasks.delivery.store import Store
from tasks.parking import Parking
from tasks.providers.registry import Registry


class Runtime:
    """Settings, breakers, providers and deliveries, wired together."""

    def __init__(self, settings: Settings, breakers: Breakers, client: redis.Redis) -> None:
        self.settings = settings
        self.breakers = breakers
        self.registry = Registry(settings, breakers)
        store = Store(client)
        self.keeper = Keeper(store, _abort, Parking(settings, self.registry, store).watch)

    def close(self) -> None:
        """Give back what is in hand and close every connection; running calls end as Cancelled."""
        self.keeper.stop()
        self.registry.close()
        self.breakers.close()
        self.keeper.store.client.close()


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
            _built[pid] = Runtime(settings, Breakers.from_url(redis_url()), client())
        return _built[pid]


def _abort(thread_id: int) -> bool:
    from tasks.providers.transport import abort  # noqa: PLC0415 - commands need no HTTP stack

    return abort(thread_id)


def close() -> None:
    """Close this process's runtime, if it has one."""
    if (built := _built.pop(os.getpid(), None)) is not None:
        built.close()

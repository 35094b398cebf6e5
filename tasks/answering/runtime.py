"""
The runtime of a process: all that it needs to serve tasks.

It is built on first use, and again after a fork: a client that was used before a fork gave one
process another process's answer.
"""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from breaker import Breakers
from breakwater.errors import ConfigError
from breakwater.redis.connection import client, redis_url
from tasks.admission.gate import Gates
from tasks.admission.health import HealthGate
from tasks.admission.parking import Parking
from tasks.answering.settings_loader import check_roles_file, load_settings
from tasks.answering.walk import ChainWalker
from tasks.config import Settings, set_served_roles
from tasks.delivery.delivery_store import DeliveryStore
from tasks.delivery.lease_keeper import DeliveryKeeper
from tasks.ledger.prices import PriceList
from tasks.providers.registry import Registry
from tasks.streaming.writer import StreamSender

if TYPE_CHECKING:
    from tasks.config.shared_page import SharedPage


_log = structlog.get_logger("breakwater")


def build_gate(health: HealthGate) -> Gates:
    """Return all gates, in the order in which a call has to pass them."""
    return Gates((health,))


class Runtime:
    """
    Settings, gates, providers and deliveries, wired together.

    A task keeps the runtime with which it begins. Changed settings make another runtime over the
    same breakers, the same keeper and the same stream sender.
    """

    def __init__(
        self,
        registry: Registry,
        breakers: Breakers,
        store: DeliveryStore,
        keeper: DeliveryKeeper,
        stream_sender: StreamSender,
    ) -> None:
        self.settings = registry.settings
        self.registry = registry
        self.breakers = breakers
        self.store = store
        self.keeper = keeper
        self.stream_sender = stream_sender
        self.health = HealthGate(registry.settings, breakers)
        gate = build_gate(self.health)
        self.walker = ChainWalker(registry, gate, PriceList(registry.settings))
        self.parking = Parking(registry.settings, gate, keeper.store)
        self._made_at = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since these settings came into use."""
        return time.monotonic() - self._made_at

    @classmethod
    def over(cls, settings: Settings, breakers: Breakers) -> "Runtime":
        """Build the first runtime of a process."""
        store = DeliveryStore(client())
        # The keeper has its own connections: it renews leases while tasks wait for theirs.
        keeper = DeliveryKeeper(DeliveryStore(client()), _abort, _watch)
        return cls(Registry(settings), breakers, store, keeper, StreamSender(store))

    def renewed(self, settings: Settings) -> "Runtime":
        """Build a runtime for changed settings; clients whose settings are the same are kept."""
        registry = Registry(settings, before=self.registry)
        return Runtime(registry, self.breakers, self.store, self.keeper, self.stream_sender)

    def close(self) -> None:
        """Return unfinished deliveries, close all connections; running calls end as Cancelled."""
        self.keeper.stop()
        self.registry.close()
        self.breakers.close()
        self.keeper.store.client.close()
        self.store.client.close()


_lock = threading.Lock()
_built: dict[int, Runtime] = {}  # by pid, so that a child never uses its parent's
_settings: Settings | None = None
_shared_page: "SharedPage | None" = None


def use_settings(settings: Settings) -> None:
    """Serve with these settings; the worker checks them once at start, before any fork."""
    global _settings, _shared_page
    from tasks.config.shared_page import SharedPage  # noqa: PLC0415 - commands read no roles file

    _settings, _shared_page = settings, SharedPage()
    set_served_roles(settings)


def change_settings(settings: Settings, content: bytes) -> None:
    """
    Serve with changed settings from now on, in this process and in the children of a prefork.

    Args:
        settings: The new settings.
        content: The bytes of the roles file from which they were made.
    """
    with _lock:
        _change(settings)
        if _shared_page:
            _shared_page.publish(content)


def runtime() -> Runtime:
    """
    Return this process's runtime.

    Raises:
        ConfigError: There are no valid settings.
    """
    if (built := _built.get(os.getpid())) is not None:
        if _shared_page and (content := _shared_page.newer(built.settings.version)):
            return _adopt_published(content)
        return built
    with _lock:
        pid = os.getpid()
        if pid not in _built:
            settings = _settings or load_settings()
            breakers = Breakers.from_url(redis_url(), listen=True)
            _built[pid] = Runtime.over(settings, breakers)
        return _built[pid]


def _adopt_published(content: bytes) -> Runtime:
    """Change, in a child, to the roles file that its parent has accepted."""
    with _lock:
        now = _built[os.getpid()]
        try:
            settings = check_roles_file(content, Path(now.settings.source), os.environ)
        except ConfigError as error:  # a user's module that has changed since
            _log.warning("roles.refused", faults=error.details["faults"])
            return now
        return _change(settings)


def _change(settings: Settings) -> Runtime:
    global _settings
    before = _built[os.getpid()]
    removed = {*before.settings.removed, *before.settings.roles} - settings.roles.keys()
    now = before.renewed(replace(settings, removed=frozenset(removed)))
    _settings, _built[os.getpid()] = now.settings, now
    set_served_roles(now.settings)
    return now


def _watch(queues: list[str], within_s: float) -> None:
    runtime().parking.watch(queues, within_s)


def _restart() -> None:
    global _lock  # noqa: PLW0603 - the thread that held the lock is not in this child
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_restart)


def _abort(thread_id: int) -> bool:
    from tasks.providers.http.transport import abort  # noqa: PLC0415 - commands need no HTTP stack

    return abort(thread_id)


def close() -> None:
    """Close this process's runtime, if it has one."""
    if (built := _built.pop(os.getpid(), None)) is not None:
        built.close()
    set_served_roles(None)

"""The breakers of one process: one object for each name, over one Redis."""

import os
import threading
import weakref
from collections.abc import Iterable
from typing import TypedDict, Unpack

import pybreaker
import redis

from breaker.changes import ChangeListener
from breaker.circuit import Neutral, SharedCircuitBreaker
from breaker.failover import FailoverStorage
from breaker.listener import TransitionLog
from breaker.probes import Probe, Probes
from breaker.redis_storage import RedisStorage, Scripts
from breaker.state import BreakerState, Report, Rules, check_name
from breaker.total_timeout_parser import TotalTimeoutParser
from breakwater.redis.address import DEFAULT_URL, Address, redis_url

TIMEOUT_S = 0.1
"""Bounds each operation while Redis is frozen. A healthy network takes well under 1 ms a step."""


class Options(TypedDict, total=False):
    """The options of `Breakers.get`: pybreaker's first; `Rules` explains the numbers."""

    fail_max: int
    reset_timeout: float
    success_threshold: int
    exclude: Iterable[Neutral]
    listeners: Iterable[pybreaker.CircuitBreakerListener]
    throw_new_error_on_trip: bool
    max_probes: int
    lease_s: float
    retry_after_max_s: float
    open_factor: float
    open_max_s: float
    open_jitter: float
    stable_s: float


class Breakers:
    """
    Makes breakers, one object for each name; use one `Breakers` per process and Redis.

    Args:
        client: A redis-py client. Its timeouts bound what a frozen Redis costs, and redis-py's
            defaults are 5 s and ten retries: prefer `from_url`, which builds the client.
        neutral: Exception classes, or predicates of an exception, that are never a provider's
            fault, for all breakers; such as a task queue's time limit.
        scripts: The Lua sources, to test others than the packaged ones.
        listen: Do not ask Redis for each call of a closed breaker. One more connection and thread
            receive the changes of other processes, and Redis is asked again each 0.8 s.
            docs/breaker.md says what that gives up.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        neutral: Iterable[Neutral] = (),
        scripts: Scripts | None = None,
        listen: bool = False,
    ) -> None:
        self._client = client
        self._neutral = tuple(neutral)
        self._probes = Probes(self._renew, self._release)
        self._redis = RedisStorage(client, scripts)
        changes = None
        if listen:
            changes = ChangeListener(client)
        self._storage = FailoverStorage(self._redis, self._probes.tokens, changes=changes)
        self._breakers: dict[str, tuple[SharedCircuitBreaker, Options]] = {}
        self._lock = threading.Lock()
        _instances.add(self)

    @classmethod
    def from_url(
        cls,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = TIMEOUT_S,
        neutral: Iterable[Neutral] = (),
        listen: bool = False,
    ) -> "Breakers":
        """
        Build the client too: `timeout_s` for each connect and each reply, no retries.

        `breakwater.redis.address` lists the forms of a URL; timeouts in its query win. The client
        uses RESP2 without SETINFO, so that connecting takes no extra round trip.

        Raises:
            ValueError: The URL has none of these forms.
        """
        pool = Address.of(url).pool(
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            protocol=2,
            driver_info=None,
            parser_class=TotalTimeoutParser,
            # One per thread at most. At redis-py's default limit of 100 the next would look like
            # an outage.
            max_connections=2**31,
        )
        return cls(redis.Redis.from_pool(pool), neutral=neutral, listen=listen)

    def get(self, name: str, **options: Unpack[Options]) -> SharedCircuitBreaker:
        """
        Return the breaker of this name; no I/O.

        Raises:
            ValueError: The name has spaces or braces, a number is out of range, or the breaker
                is already in use with other options.
        """
        with self._lock:
            breaker, made_with = self._known(name)
            if breaker is None:
                breaker = self._make(name, **options)
                self._breakers[name] = breaker, options
            elif options and options != made_with:
                raise ValueError(
                    f"breaker {name!r} is already in use with {made_with}, not with {options}"
                )
            return breaker

    def replace(self, name: str, **options: Unpack[Options]) -> SharedCircuitBreaker:
        """
        Return the breaker of this name, with these options from now on; no I/O.

        An object that `get` or `replace` returned earlier keeps its rules. Both share one state.

        Raises:
            ValueError: The name has spaces or braces, or a number is out of range.
        """
        with self._lock:
            breaker, made_with = self._known(name)
            if breaker is None or options != made_with:
                breaker = self._make(name, **options)
                self._breakers[name] = breaker, options
            return breaker

    def peek_all(self) -> list[BreakerState]:
        """Read each breaker that any process has used, sorted by name; in an outage, `views`."""
        return self._storage.peek_all()

    def exists(self, name: str) -> bool:
        """
        Return whether any process has used a breaker of this name.

        With `listen` the received changes decide; else Redis is asked once a second.
        """
        return self._storage.exists(name)

    def views(self) -> list[BreakerState]:
        """Return the last known state of each breaker, sorted by name; no I/O."""
        return self._storage.views()

    def events(self, name: str, count: int = 20) -> list[dict[str, str]]:
        """
        Read a breaker's last transitions, newest first.

        Raises:
            RedisError: Redis does not answer.
        """
        return self._redis.events(name, count)

    def reset_all(self) -> None:
        """
        Close each breaker that any process has used; end overrides and Retry-After.

        Raises:
            RedisError: Redis does not answer.
        """
        for name in self._redis.names():
            breaker, _ = self._known(name)
            (breaker or self._make(name)).reset()

    def close(self) -> None:
        """Close the connections."""
        self._storage.close()
        self._client.close()

    def restart(self) -> None:
        """Start over in a forked child; the fork calls this."""
        self._lock = threading.Lock()
        self._storage.restart()
        self._probes.restart()

    def _known(self, name: str) -> tuple[SharedCircuitBreaker | None, Options]:
        breaker, made_with = self._breakers.get(name, (None, Options()))
        if breaker and breaker.name != name:  # its `name` was set
            return None, Options()
        return breaker, made_with

    def _make(self, name: str, **options: Unpack[Options]) -> SharedCircuitBreaker:
        check_name(name)
        return SharedCircuitBreaker(
            name,
            self._storage,
            self._probes,
            _rules(options),
            exclude=(*self._neutral, *options.get("exclude", ())),
            listeners=(TransitionLog(), *options.get("listeners", ())),
            throw_new_error_on_trip=options.get("throw_new_error_on_trip", True),
        )

    def _renew(self, name: str, rules: Rules, tokens: list[str]) -> None:
        self._storage.renew(name, rules, tokens)

    def _release(self, probe: Probe) -> None:
        view = probe.view
        report = Report(probe.token, view.generation, "neutral", source=view.source)
        self._storage.record(view.name, probe.rules, report)


def _rules(options: Options) -> Rules:
    own = {"exclude", "listeners", "throw_new_error_on_trip"}
    renamed = {"reset_timeout": "reset_timeout_s"}
    numbers = {renamed.get(key, key): value for key, value in options.items() if key not in own}
    return Rules(**numbers)  # type: ignore[arg-type] # the keys that are left are Rules' fields


# A fork's child has to restart all of them, and `get_circuit_breaker` has to find its own again.
_instances: "weakref.WeakSet[Breakers]" = weakref.WeakSet()
_by_url: dict[str, Breakers] = {}
_by_url_lock = threading.Lock()


def _restart_all() -> None:
    for breakers in list(_instances):
        breakers.restart()


os.register_at_fork(after_in_child=_restart_all)


def get_circuit_breaker(name: str, **options: Unpack[Options]) -> SharedCircuitBreaker:
    """Return the breaker of this name on `REDIS_URL`; options and errors as `Breakers.get`."""
    return _on_default_redis().get(name, **options)


def reset_all_breakers() -> None:
    """Close each breaker on `REDIS_URL`; end overrides and Retry-After."""
    _on_default_redis().reset_all()


def _on_default_redis() -> Breakers:
    url = redis_url()
    with _by_url_lock:
        if url not in _by_url:
            _by_url[url] = Breakers.from_url(url)
        return _by_url[url]

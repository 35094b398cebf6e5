"""All breakers of one process, over one Redis."""

import os
import threading
import weakref
from collections.abc import Iterable
from typing import Any, TypedDict, Unpack

import pybreaker
import redis

from breaker.changes import Changes
from breaker.circuit import Neutral, SharedCircuitBreaker
from breaker.failover import FailoverStorage
from breaker.listener import TransitionLog
from breaker.probes import Probe, Probes
from breaker.redis_storage import RedisStorage, Scripts
from breaker.state import BreakerState, Report, Rules, check_name
from breaker.total_timeout_parser import TotalTimeoutParser
from breakwater.redis.address import DEFAULT_URL, Address, redis_url

# Bounds each operation when Redis is frozen; on a healthy network a step takes well under 1 ms.
TIMEOUT_S = 0.1


class Options(TypedDict, total=False):
    """What `Breakers.get` takes: pybreaker's names first; see `Rules` for the numbers."""

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
    Hand out breakers, one object a name; make one of these per process and Redis.

    Args:
        client: A redis-py client, used as it is. Its timeouts bound what a frozen Redis costs,
            so better let `from_url` build it: redis-py's own are 5 s and ten retries.
        neutral: Exception classes, or predicates of an exception, that are never a provider's
            fault, for all breakers (a task queue's time limit, say).
        scripts: The Lua sources, to test others than the packaged ones.
        listen: A breaker known to be closed is not asked for each call: changes by other
            processes are heard of, on a connection and in a thread of its own, and it is asked
            again each 0.8 s. docs/breaker.md says what that gives up.
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
        self._probes = Probes(self._renew, self._give_back)
        self._storage = FailoverStorage(
            RedisStorage(client, scripts),
            self._probes.tokens,
            changes=Changes(client) if listen else None,
        )
        self._breakers: dict[str, tuple[SharedCircuitBreaker, Options]] = {}
        self._lock = threading.Lock()
        _ALL.add(self)

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
        Build the client too: bounded by `timeout_s` for each connect and each answer, no retries.

        `breakwater.redis.address` has the forms of a URL; timeouts in its query win. RESP2 without
        SETINFO, so that connecting takes no extra round trip.

        Raises:
            ValueError: The URL is none of these forms.
        """
        pool = Address.of(url).pool(
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            protocol=2,
            driver_info=None,
            parser_class=TotalTimeoutParser,
            # One per thread at most; redis-py's own limit of 100 would look like an outage.
            max_connections=2**31,
        )
        return cls(redis.Redis.from_pool(pool), neutral=neutral, listen=listen)

    def get(self, name: str, **options: Unpack[Options]) -> SharedCircuitBreaker:
        """
        Give the breaker of this name; no I/O.

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
        Give the breaker of this name with these options from now on, whatever it had; no I/O.

        Whoever holds an object of before goes on by its rules; the state is one and the same.

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
        """Read every breaker any process has used, sorted by name; during an outage, `views`."""
        return self._storage.peek_all()

    def exists(self, name: str) -> bool:
        """
        Tell whether any process has used a breaker of this name.

        With `listen` this is answered from what was heard; else Redis is asked once a second.
        """
        return self._storage.exists(name)

    def views(self) -> list[BreakerState]:
        """Tell how each breaker stood when this process last heard of it; no I/O."""
        return self._storage.views()

    def events(self, name: str, count: int = 20) -> list[dict[str, str]]:
        """
        Read a breaker's last transitions, newest first.

        Raises:
            RedisError: Redis does not answer.
        """
        return self._storage.redis.events(name, count)

    def reset_all(self) -> None:
        """
        Close every breaker any process has used, and end overrides and hold-backs.

        Raises:
            RedisError: Redis does not answer.
        """
        for name in self._storage.redis.names():
            breaker, _ = self._known(name)
            (breaker or self._make(name)).reset()

    def close(self) -> None:
        """Close the connections."""
        self._storage.close()
        self._client.close()

    def restart(self) -> None:
        """Begin anew in a forked child; called by the fork itself."""
        self._lock = threading.Lock()
        self._storage.restart()
        self._probes.restart()

    def _known(self, name: str) -> tuple[SharedCircuitBreaker | None, Options]:
        breaker, made_with = self._breakers.get(name, (None, Options()))
        if breaker and breaker.name != name:  # it was given another name
            return None, Options()
        return breaker, made_with

    def _make(self, name: str, **options: Any) -> SharedCircuitBreaker:
        check_name(name)
        own = {"exclude", "listeners", "throw_new_error_on_trip"}
        renamed = {"reset_timeout": "reset_timeout_s"}
        numbers = {renamed.get(key, key): options[key] for key in options.keys() - own}
        return SharedCircuitBreaker(
            name,
            self._storage,
            self._probes,
            Rules(**numbers),
            exclude=(*self._neutral, *options.get("exclude", ())),
            listeners=(TransitionLog(), *options.get("listeners", ())),
            throw_new_error_on_trip=options.get("throw_new_error_on_trip", True),
        )

    def _renew(self, name: str, rules: Rules, tokens: list[str]) -> None:
        self._storage.renew(name, rules, tokens)

    def _give_back(self, probe: Probe) -> None:
        local = probe.view.source == "local"
        record = self._storage.record_local if local else self._storage.record
        report = Report(probe.token, probe.view.generation, "neutral")
        record(probe.view.name, probe.rules, report)


_ALL: "weakref.WeakSet[Breakers]" = weakref.WeakSet()
_default: dict[str, Breakers] = {}
_default_lock = threading.Lock()


def _restart_all() -> None:
    for breakers in list(_ALL):
        breakers.restart()


os.register_at_fork(after_in_child=_restart_all)


def get_circuit_breaker(name: str, **options: Unpack[Options]) -> SharedCircuitBreaker:
    """Give the breaker of this name on `REDIS_URL`; options and errors as `Breakers.get`."""
    return _on_default_redis().get(name, **options)


def reset_all_breakers() -> None:
    """Close every breaker on `REDIS_URL`, and end overrides and hold-backs."""
    _on_default_redis().reset_all()


def _on_default_redis() -> Breakers:
    url = redis_url()
    with _default_lock:
        if url not in _default:
            _default[url] = Breakers.from_url(url)
        return _default[url]

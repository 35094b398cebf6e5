"""
Breakers in the memory of one process, by the rules of `scripts/*.lua`; used in an outage of Redis.

The steps and replies are those of `redis_storage.py`. Time is the monotonic clock, which never
steps back, so nothing needs the clamps of the scripts. There is no event stream and no `force`: an
operator's change is for the whole fleet.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from breaker.state import BreakerState, Forced, Report, Rules, State, StorageReply
from breakwater.redis.process_name import process_name


@dataclass(slots=True)
class _Breaker:
    """One breaker: the fields of the hash, with deadlines in seconds of the monotonic clock."""

    generation: int
    since_s: float
    state: State = "closed"
    failures: int = 0
    successes: int = 0
    seq: int = 0
    open_until_s: float = 0.0
    held_until_s: float = 0.0
    since_ms: int = 0
    trips: int = 0
    reason: str = ""
    who: str = ""
    stale: int = 0
    forced: Forced | None = None
    leases: dict[str, float] = field(default_factory=dict)


class LocalStorage:
    """
    A `Storage` in memory; safe for threads.

    Args:
        clock: Seconds, never stepping back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._breakers: dict[str, _Breaker] = {}
        # Survives clear(): a permit of one outage must not count in the next.
        self._newest_generation = 0

    def seed(self, view: BreakerState, age_s: float, tokens: Iterable[str], rules: Rules) -> None:
        """
        Begin a breaker with its last state in Redis, unless it has begun here already.

        Args:
            view: The last state in Redis.
            age_s: The age of that view.
            tokens: The probes that this process runs; their leases restart.
            rules: The breaker's.
        """
        now = self._clock()
        breaker = _Breaker(
            generation=view.generation, since_s=now, state=view.state, failures=view.failures,
            successes=view.successes, seq=view.seq, open_until_s=now - age_s + view.open_for_s,
            held_until_s=now - age_s + view.held_for_s, since_ms=view.since_ms, trips=view.trips,
            reason=view.reason, who=view.who, stale=view.stale, forced=view.forced,
        )  # fmt: skip
        if view.state == "half-open":
            breaker.leases = dict.fromkeys(tokens, now + rules.lease_s)
        with self._lock:
            self._newest_generation = max(self._newest_generation, view.generation)
            self._breakers.setdefault(view.name, breaker)

    def has(self, name: str) -> bool:
        """Return whether the breaker has begun here."""
        return name in self._breakers

    def views(self) -> dict[str, BreakerState]:
        """Return the state of each breaker that has begun here, by name."""
        return {name: self.peek(name, Rules()) for name in self._breakers.copy()}

    def clear(self) -> None:
        """Drop all breakers when an outage begins: those of an earlier outage are out of date."""
        with self._lock:
            self._breakers.clear()

    def admit(self, name: str, rules: Rules, token: str) -> StorageReply:
        """Admit or refuse a call; a token that was admitted is admitted again."""
        with self._lock:
            b, now = self._current(name)
            before = b.state
            if self._admit(name, b, now, rules, token):
                return _reply(name, b, now, before, 1)
            return _reply(name, b, now, before, 0, wait_s=_wait_s(b, now))

    def record(self, name: str, rules: Rules, report: Report) -> StorageReply:
        """Count the outcome of an admitted call."""
        with self._lock:
            b, now = self._current(name)
            before, leased = b.state, report.token in b.leases
            if (
                report.generation != b.generation
                or b.state == "open"
                or (b.state == "half-open" and not leased)
            ):
                b.stale += 1
                return _reply(name, b, now, before, 0)
            b.leases.pop(report.token, None)
            self._count(b, now, rules, report)
            return _reply(name, b, now, before, 1)

    def renew(self, name: str, rules: Rules, tokens: Iterable[str]) -> StorageReply:
        """Restart the leases of running probes; an expired lease stays expired."""
        with self._lock:
            b, now = self._current(name)
            alive = [token for token in tokens if token in b.leases]
            b.leases.update(dict.fromkeys(alive, now + rules.lease_s))
            return _reply(name, b, now, b.state, len(alive))

    def peek(self, name: str, rules: Rules) -> BreakerState:
        """Read the state of a breaker."""
        with self._lock:
            b, now = self._current(name)
            return _reply(name, b, now, b.state, 1).view

    def _current(self, name: str) -> tuple[_Breaker, float]:
        """Return a breaker, and the time; begin it closed if it is new, and end what is over."""
        now = self._clock()
        b = self._breakers.get(name)
        if b is None:
            self._newest_generation += 1
            b = self._breakers[name] = _Breaker(generation=self._newest_generation, since_s=now)
        if b.held_until_s <= now and b.reason == "throttled":
            b.reason = ""
        b.leases = {token: expiry for token, expiry in b.leases.items() if expiry > now}
        return b, now

    def _admit(self, name: str, b: _Breaker, now: float, rules: Rules, token: str) -> bool:
        """Take the steps of `scripts/admit.lua`; return whether the call may go out."""
        if b.state == "open" and not b.forced and now >= b.open_until_s:
            self._transition(b, now, "half-open")
        if b.forced or token not in b.leases:
            if not _view(name, b, now).admits(rules):
                return False
            if b.state == "half-open" and not b.forced:
                b.leases[token] = now + rules.lease_s
        return True

    def _count(self, b: _Breaker, now: float, rules: Rules, report: Report) -> None:
        held_until_s = now + rules.retry_after_s(report.retry_after_s)
        if held_until_s > max(now, b.held_until_s):
            b.held_until_s = held_until_s
            if b.state == "closed":
                b.reason = "throttled"

        if report.outcome == "failure":
            b.failures += 1
            if b.state == "half-open" or report.trip or b.failures >= rules.fail_max:
                self._trip(b, now, rules, report.reason)
        elif report.outcome == "success" and b.state == "half-open":
            b.successes, b.failures = b.successes + 1, 0
            if b.successes >= rules.success_threshold:
                self._close(b, now)
        elif report.outcome == "success":
            b.failures = 0

    def _trip(self, b: _Breaker, now: float, rules: Rules, reason: str) -> None:
        if b.state == "closed":
            b.trips = max(0, b.trips - int((now - b.since_s) / rules.stable_s))
        open_s = rules.open_s(b.trips) * (1 + random.random() * rules.open_jitter)
        b.trips += 1
        b.open_until_s = max(now + open_s, b.held_until_s)
        b.held_until_s = 0.0
        b.reason = reason
        self._transition(b, now, "open")

    def _close(self, b: _Breaker, now: float) -> None:
        self._transition(b, now, "closed")
        b.failures = 0
        b.reason = ""
        if b.held_until_s > now:
            b.reason = "throttled"

    def _transition(self, b: _Breaker, now: float, to: State) -> None:
        self._newest_generation = b.generation = max(b.generation, self._newest_generation) + 1
        b.state, b.since_s, b.who, b.successes = to, now, process_name(), 0
        b.since_ms = time.time_ns() // 1_000_000  # shown, never decided on
        b.leases.clear()


def _wait_s(b: _Breaker, now: float) -> float:
    """Return the seconds until a refused call may ask again; 0 if that cannot be known."""
    if b.forced:
        return 0.0
    if b.state == "open":
        return b.open_until_s - now
    if b.held_until_s > now:
        return b.held_until_s - now
    return min(b.leases.values()) - now


def _view(name: str, b: _Breaker, now: float) -> BreakerState:
    open_for_s = 0.0
    if b.state == "open":
        open_for_s = max(0.0, b.open_until_s - now)
    return BreakerState(
        name=name, state=b.state, failures=b.failures, successes=b.successes,
        generation=b.generation, seq=b.seq, open_for_s=open_for_s,
        held_for_s=max(0.0, b.held_until_s - now), since_ms=b.since_ms, trips=b.trips,
        reason=b.reason, who=b.who, stale=b.stale, forced=b.forced, probes=len(b.leases),
        source="local",
    )  # fmt: skip


def _reply(
    name: str, b: _Breaker, now: float, before: State, accepted: int, *, wait_s: float = 0.0
) -> StorageReply:
    b.seq += 1
    view = _view(name, b, now)
    return StorageReply(
        accepted, wait_s, rebuilt=False, before=before, transitioned=b.state != before, view=view
    )

"""
The breakers in this process alone: the rules of `scripts/*.lua`, for while Redis does not answer.

Same operations, same answers as `redis_storage.py`; time is the monotonic clock, which never steps
back, so nothing needs the clamps of the scripts. There is no event stream, and no `force`: an
operator's word is for the whole fleet.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from breaker.state import BreakerState, Forced, Report, Rules, State, StorageReply, whoami


@dataclass(slots=True)
class _Breaker:
    """Fields as in the hash; deadlines are of the monotonic clock, in seconds."""

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
    Keep breakers in memory; safe for threads.

    Args:
        clock: Seconds, never stepping back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._breakers: dict[str, _Breaker] = {}
        # Survives clear(): a permit of one outage must not count in the next.
        self._newest = 0

    def seed(self, view: BreakerState, age_s: float, tokens: Iterable[str], rules: Rules) -> None:
        """
        Begin with what Redis said last, unless the breaker is known here already.

        Args:
            view: How the breaker stood.
            age_s: How long ago that was.
            tokens: Probes this process is running; their leases begin again.
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
            self._newest = max(self._newest, view.generation)
            self._breakers.setdefault(view.name, breaker)

    def knows(self, name: str) -> bool:
        """Tell whether the breaker has begun here."""
        return name in self._breakers

    def names(self) -> list[str]:
        """Name the breakers that have begun here."""
        return list(self._breakers.copy())

    def clear(self) -> None:
        """Forget everything: Redis answers again, and Redis wins."""
        with self._lock:
            self._breakers.clear()

    def admit(self, name: str, rules: Rules, token: str) -> StorageReply:
        """Ask for a call to go out; asking again with the same token is the same grant."""
        with self._lock:
            b, now = self._at(name)
            before = b.state
            if self._admit(name, b, now, rules, token):
                return _answer(name, b, now, before, 1)
            return _answer(name, b, now, before, 0, wait_s=_wait_s(b, now))

    def record(self, name: str, rules: Rules, report: Report) -> StorageReply:
        """Tell how a call ended."""
        with self._lock:
            b, now = self._at(name)
            before, leased = b.state, report.token in b.leases
            if (
                report.generation != b.generation
                or b.state == "open"
                or (b.state == "half-open" and not leased)
            ):
                b.stale += 1
                return _answer(name, b, now, before, 0)
            b.leases.pop(report.token, None)
            self._count(b, now, rules, report)
            return _answer(name, b, now, before, 1)

    def renew(self, name: str, rules: Rules, tokens: Iterable[str]) -> StorageReply:
        """Let the leases of probes still running begin again; expired ones stay expired."""
        with self._lock:
            b, now = self._at(name)
            alive = [token for token in tokens if token in b.leases]
            b.leases.update(dict.fromkeys(alive, now + rules.lease_s))
            return _answer(name, b, now, b.state, len(alive))

    def peek(self, name: str) -> BreakerState:
        """Read how a breaker stands."""
        with self._lock:
            b, now = self._at(name)
            return _answer(name, b, now, b.state, 1).view

    def _at(self, name: str) -> tuple[_Breaker, float]:
        """Find the breaker, or begin it closed; drop what has ended by now."""
        now = self._clock()
        b = self._breakers.get(name)
        if b is None:
            self._newest += 1
            b = self._breakers[name] = _Breaker(generation=self._newest, since_s=now)
        if b.held_until_s <= now and b.reason == "throttled":
            b.reason = ""
        b.leases = {token: expiry for token, expiry in b.leases.items() if expiry > now}
        return b, now

    def _admit(self, name: str, b: _Breaker, now: float, rules: Rules, token: str) -> bool:
        """Take the steps of `scripts/admit.lua`; return whether the call may go out."""
        if b.state == "open" and not b.forced and now >= b.open_until_s:
            self._turn(b, now, "half-open")
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
                if b.state == "closed":
                    b.trips = max(0, b.trips - int((now - b.since_s) / rules.stable_s))
                open_s = rules.open_s(b.trips) * (1 + random.random() * rules.open_jitter)
                b.trips += 1
                self._open(b, now, open_s, report.reason)
        elif report.outcome == "success" and b.state == "half-open":
            b.successes, b.failures = b.successes + 1, 0
            if b.successes >= rules.success_threshold:
                self._close(b, now)
        elif report.outcome == "success":
            b.failures = 0

    def _open(self, b: _Breaker, now: float, planned_s: float, reason: str) -> None:
        b.open_until_s = max(now + planned_s, b.held_until_s)
        b.held_until_s = 0.0
        b.reason = reason
        self._turn(b, now, "open")

    def _close(self, b: _Breaker, now: float) -> None:
        self._turn(b, now, "closed")
        b.failures = 0
        b.reason = "throttled" if b.held_until_s > now else ""

    def _turn(self, b: _Breaker, now: float, to: State) -> None:
        self._newest = b.generation = max(b.generation, self._newest) + 1
        b.state, b.since_s, b.who, b.successes = to, now, whoami(), 0
        b.since_ms = time.time_ns() // 1_000_000  # shown, never decided on
        b.leases.clear()


def _wait_s(b: _Breaker, now: float) -> float:
    """Return when a refused call may ask again; 0 if that cannot be known."""
    if b.forced:
        return 0.0
    if b.state == "open":
        return b.open_until_s - now
    if b.held_until_s > now:
        return b.held_until_s - now
    return min(b.leases.values()) - now


def _view(name: str, b: _Breaker, now: float) -> BreakerState:
    open_until_s = b.open_until_s if b.state == "open" else now
    return BreakerState(
        name=name, state=b.state, failures=b.failures, successes=b.successes,
        generation=b.generation, seq=b.seq, open_for_s=max(0.0, open_until_s - now),
        held_for_s=max(0.0, b.held_until_s - now), since_ms=b.since_ms, trips=b.trips,
        reason=b.reason, who=b.who, stale=b.stale, forced=b.forced, probes=len(b.leases),
        source="local",
    )  # fmt: skip


def _answer(
    name: str, b: _Breaker, now: float, before: State, accepted: int, *, wait_s: float = 0.0
) -> StorageReply:
    b.seq += 1
    view = _view(name, b, now)
    return StorageReply(
        accepted, wait_s, rebuilt=False, before=before, transitioned=b.state != before, view=view
    )

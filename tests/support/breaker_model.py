"""
The reference model of the breaker: the contract in plain Python, nothing of Redis in it.

Written from the contract, not from the scripts, so that the two can be held against each other.
A breaker is a value; every operation takes one and returns the next. Time comes in as
microseconds and is kept in milliseconds, as the server does.

One rule of the store is visible and therefore modelled: what has merely ended (a lease, a hold)
is forgotten by the next write, not by time itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a breaker goes by; times in ms, small enough to walk through every case."""

    fail_max: int = 2
    threshold: int = 2
    max_probes: int = 2
    reset_ms: int = 2
    lease_ms: int = 2
    open_factor: int = 1
    open_max_ms: int = 1_000
    stable_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Breaker:
    """
    One breaker as it stands in the store; deadlines are server time in ms.

    Args:
        lost: There is no hash, or it cannot be read.
        told: `to` and generation of the last entry of the event stream.
    """

    state: str = "closed"
    failures: int = 0
    successes: int = 0
    generation: int = 0
    open_until: int = 0
    open_for: int = 0
    held_until: int = 0
    held_for: int = 0
    since: int = 0
    trips: int = 0
    reason: str = ""
    who: str = ""
    stale: int = 0
    forced: str = ""
    leases: Mapping[str, int] = field(default_factory=dict)
    lost: bool = True
    told: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One transition, as the stream tells it."""

    before: str
    to: str
    reason: str
    failures: int
    successes: int
    generation: int
    open_until: int
    trips: int
    at: int


@dataclass(frozen=True, slots=True)
class Step:
    """What an operation answers: verdict (granted, counted, how many), and the breaker after."""

    after: Breaker
    seen: Breaker
    accepted: int
    wait_ms: int = 0
    events: tuple[Event, ...] = ()
    rebuilt: bool = False


class Model:
    """
    The rules.

    Args:
        numbers: What the breaker goes by.
        who: The client's name for itself.
    """

    def __init__(self, numbers: Numbers, who: str = "me") -> None:
        self.numbers = numbers
        self.who = who

    def seen(self, b: Breaker, now_us: int) -> Breaker:
        """Tell how a breaker stands now: what is over is gone, nothing lasts beyond its plan."""
        now = now_us // 1000
        if b.lost:
            return Breaker(forced=b.forced, told=b.told)
        held_until = min(b.held_until, now + b.held_for)
        held = held_until > now
        lease_end = now + self.numbers.lease_ms
        return replace(
            b,
            open_until=min(b.open_until, now + b.open_for),
            held_until=held_until if held else 0,
            held_for=b.held_for if held else 0,
            reason="" if b.reason == "throttled" and not held else b.reason,
            leases={
                token: min(expiry, lease_end)
                for token, expiry in b.leases.items()
                if expiry > now and b.state == "half-open"
            },
        )

    def admit(self, b: Breaker, now_us: int, token: str) -> Step:
        """May a call go out?"""
        now = now_us // 1000
        s, events = self._begin(b, now_us)
        if s.forced == "open":
            return self._step(b, s, now_us, 0, events)
        if s.forced == "closed":
            return self._step(b, s, now_us, 1, events)
        if s.state == "open":
            if now < s.open_until:
                return self._step(b, s, now_us, 0, events, wait_ms=s.open_until - now)
            s, event = self._turn(replace(s, open_until=0, open_for=0), now_us, "half-open", "due")
            events = (*events, event)
        if token in s.leases:
            return self._step(b, s, now_us, 1, events)
        if s.held_until > now:
            return self._step(b, s, now_us, 0, events, wait_ms=s.held_until - now)
        if s.state == "closed":
            over = b.held_until > 0 and s.held_until == 0
            return self._step(b, s, now_us, 1, events, write=over)
        room = max(1, min(self.numbers.max_probes, self.numbers.threshold - s.successes))
        if len(s.leases) >= room:
            wait_ms = min(s.leases.values()) - now
            return self._step(b, s, now_us, 0, events, wait_ms=wait_ms)
        s = replace(s, leases={**s.leases, token: now + self.numbers.lease_ms})
        return self._step(b, s, now_us, 1, events)

    def record(
        self,
        b: Breaker,
        now_us: int,
        token: str,
        generation: int,
        outcome: str,
        *,
        reason: str = "",
        retry_ms: int = 0,
        trip: bool = False,
    ) -> Step:
        """How did the call end?"""
        now = now_us // 1000
        s, events = self._begin(b, now_us)
        stale = generation != s.generation or s.state == "open"
        if stale or (s.state == "half-open" and token not in s.leases):
            return self._step(b, replace(s, stale=s.stale + 1), now_us, 0, events)
        over = b.held_until > 0 and s.held_until == 0
        s = replace(s, leases={other: end for other, end in s.leases.items() if other != token})
        if retry_ms and now + retry_ms > s.held_until:
            s = replace(s, held_until=now + retry_ms, held_for=retry_ms)
            if s.state == "closed":
                s = replace(s, reason="throttled")
        write = False
        if outcome == "failure":
            s = replace(s, failures=s.failures + 1)
            if s.state == "half-open" or trip or s.failures >= self.numbers.fail_max:
                s, event = self._trip(s, now_us, reason)
                events = (*events, event)
        elif outcome == "success" and s.state == "half-open":
            s = replace(s, successes=s.successes + 1, failures=0)
            if s.successes >= self.numbers.threshold:
                s, event = self._close(s, now_us, "recovered")
                events = (*events, event)
        elif outcome == "success":
            s = replace(s, failures=0)
            write = over
        return self._step(b, s, now_us, 1, events, write=write)

    def renew(self, b: Breaker, now_us: int, tokens: Iterable[str]) -> Step:
        """These probes are still running."""
        s = self.seen(b, now_us)
        alive = [token for token in tokens if token in s.leases]
        lease_end = now_us // 1000 + self.numbers.lease_ms
        after = replace(s, leases={**s.leases, **dict.fromkeys(alive, lease_end)})
        return self._step(b, after, now_us, len(alive), (), write=bool(alive))

    def force(self, b: Breaker, now_us: int, to: str = "", forced: str = "") -> Step:
        """Do as the operator says."""
        s, events = self._begin(b, now_us)
        if to == "open":
            s, event = self._open(s, now_us, self.numbers.reset_ms, "manual")
            events = (*events, event)
        elif to == "half-open":
            s = replace(s, open_until=0, open_for=0)
            s, event = self._turn(s, now_us, "half-open", "manual")
            events = (*events, event)
        elif to == "closed":
            s = replace(s, held_until=0, held_for=0)
            if s.state != "closed" or s.failures:
                s, event = self._close(replace(s, trips=0), now_us, "manual")
                events = (*events, event)
            s = replace(s, reason="")
        if forced:
            s = replace(s, forced="" if forced == "none" else forced)
        return self._step(b, s, now_us, 1, events, write=True)

    def _begin(self, b: Breaker, now_us: int) -> tuple[Breaker, tuple[Event, ...]]:
        """Read it; what was lost begins anew, closed, and the stream is told if it was not."""
        s = self.seen(b, now_us)
        if not b.lost:
            return s, ()
        to, generation = b.told or ("closed", 0)
        s = replace(s, lost=False, since=now_us // 1000, generation=generation)
        if to != "closed":
            s, event = self._turn(replace(s, state=to), now_us, "closed", "lost")
            return s, (event,)
        return replace(s, generation=max(generation + 1, now_us)), ()

    def _trip(self, s: Breaker, now_us: int, reason: str) -> tuple[Breaker, Event]:
        trips = s.trips
        if s.state == "closed":
            trips = max(0, trips - max(0, now_us // 1000 - s.since) // self.numbers.stable_ms)
        ms = min(self.numbers.reset_ms * self.numbers.open_factor**trips, self.numbers.open_max_ms)
        return self._open(replace(s, trips=trips + 1), now_us, ms, reason)

    def _open(self, s: Breaker, now_us: int, ms: int, reason: str) -> tuple[Breaker, Event]:
        """Open for as long as planned, or as the provider asked to be left alone if longer."""
        now = now_us // 1000
        ms = max(ms, s.held_until - now)
        s = replace(s, open_until=now + ms, open_for=ms, held_until=0, held_for=0, reason=reason)
        return self._turn(s, now_us, "open", reason)

    def _close(self, s: Breaker, now_us: int, reason: str) -> tuple[Breaker, Event]:
        s = replace(s, open_until=0, open_for=0)
        s, event = self._turn(s, now_us, "closed", reason)
        return replace(s, failures=0, reason="throttled" if s.held_until else ""), event

    def _turn(self, s: Breaker, now_us: int, to: str, reason: str) -> tuple[Breaker, Event]:
        generation = max(s.generation + 1, now_us)
        now = now_us // 1000
        event = Event(
            s.state, to, reason, s.failures, s.successes, generation, s.open_until, s.trips, now
        )
        after = replace(
            s,
            state=to,
            successes=0,
            generation=generation,
            since=now,
            who=self.who,
            leases={},
            told=(to, generation),
        )
        return after, event

    def _step(
        self,
        b: Breaker,
        s: Breaker,
        now_us: int,
        accepted: int,
        events: tuple[Event, ...],
        *,
        wait_ms: int = 0,
        write: bool = False,
    ) -> Step:
        """Write only what changed: a call let through a closed breaker leaves no trace."""
        before = self.seen(b, now_us)
        shortened = (
            before.open_until < b.open_until
            or 0 < before.held_until < b.held_until
            or any(before.leases[token] < b.leases[token] for token in before.leases)
        )
        after = s if write or shortened or s != before else b
        rebuilt = b.lost and not after.lost
        return Step(after, s, accepted, wait_ms, events, rebuilt)

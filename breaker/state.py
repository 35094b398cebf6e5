"""The data of a breaker: its rules, its state, the report of a call, the reply of a storage."""

import re
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]
Outcome = Literal["success", "failure", "neutral"]
Forced = Literal["open", "closed"]
Source = Literal["redis", "local"]

# Braces would move the hash tag, and with it the Cluster slot of one of the two keys.
NAME = re.compile(r"[^\s{}\x00-\x1f]+")


def check_name(name: str) -> None:
    """
    Check a breaker's name, which is a part of its keys in Redis.

    Raises:
        ValueError: It has spaces or braces.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"breaker name {name!r} must be without spaces and braces")


@dataclass(frozen=True, slots=True)
class Rules:
    """
    The numbers that one breaker follows. All clients of a breaker should use the same.

    Args:
        fail_max: Consecutive failures that open it.
        reset_timeout_s: Time in open before probes are admitted.
        success_threshold: Successful probes that close it.
        max_probes: Probes at once in half-open, over the whole fleet.
        lease_s: How long a probe keeps its slot without a renewal. A living client renews its
            lease, so this is the cost of a dead one.
        retry_after_max_s: A longer Retry-After is cut to this.
        open_factor: Each further trip in a row multiplies the open time by this; 1 is off.
        open_max_s: The longest open time after that.
        open_jitter: Up to this share is added to the open time at random; 0 is off.
        stable_s: Each period of this length in closed takes one trip off the count.
    """

    fail_max: int = 5
    reset_timeout_s: float = 30.0
    success_threshold: int = 2
    max_probes: int = 2
    lease_s: float = 10.0
    retry_after_max_s: float = 3600.0
    open_factor: float = 1.0
    open_max_s: float = 600.0
    open_jitter: float = 0.0
    stable_s: float = 300.0

    def __post_init__(self) -> None:
        """
        Check the numbers.

        Raises:
            ValueError: Naming each number that is out of its range.
        """
        at_least = {
            "fail_max": 1, "success_threshold": 1, "max_probes": 1, "open_factor": 1,
            "reset_timeout_s": 0.001, "lease_s": 0.001, "open_max_s": 0.001, "stable_s": 0.001,
            "retry_after_max_s": 0, "open_jitter": 0,
        }  # fmt: skip
        faults = [
            f"{name} is {getattr(self, name)!r}, it must be at least {least} and finite"
            for name, least in at_least.items()
            if not least <= getattr(self, name) < 1e9
        ]
        if faults:
            raise ValueError("; ".join(faults))

    def open_s(self, trips: int) -> float:
        """Return the open time after `trips` earlier trips in a row, without jitter."""
        ceiling = max(self.open_max_s, self.reset_timeout_s)
        return min(self.reset_timeout_s * self.open_factor ** min(trips, 1000), ceiling)

    def slots(self, successes: int) -> int:
        """
        Return how many probes may run at once after `successes` of this half-open period.

        At least one: a client with a smaller threshold than the one counted with must not lock
        the breaker for ever.
        """
        return max(1, min(self.max_probes, self.success_threshold - successes))

    def retry_after_s(self, asked_s: float | None) -> float:
        """Return how long a Retry-After holds the provider back; 0 without a positive one."""
        if asked_s and asked_s > 0:
            return min(asked_s, self.retry_after_max_s)
        return 0.0


@dataclass(frozen=True, slots=True)
class BreakerState:
    """
    The state of a breaker at one moment.

    Args:
        name: The breaker's name.
        state: closed, open or half-open; `forced` may override what it means.
        failures: The run of failures; kept visible while open.
        successes: Successful probes of this half-open period.
        generation: Grows with each transition; 0 if Redis has no such breaker.
        seq: Grows with each write; (generation, seq) orders views of one breaker.
        open_for_s: Time left in open; 0 if it is not open, or due.
        held_for_s: Time for which a Retry-After still holds it back.
        since_ms: Time of the last transition, in ms since the epoch by Redis' clock.
        trips: Trips in a row.
        reason: Class of the error that tripped it, `manual`, or `throttled` while held in closed.
        who: host:pid that made the last transition.
        stale: Outcomes that were ignored because they came too late.
        forced: An operator's override, None if there is none.
        probes: The number of leases, of probes that run now.
        source: redis, or local while Redis does not answer.
    """

    name: str
    state: State
    failures: int
    successes: int
    generation: int
    seq: int
    open_for_s: float
    held_for_s: float
    since_ms: int
    trips: int
    reason: str
    who: str
    stale: int
    forced: Forced | None
    probes: int
    source: Source

    def admits(self, rules: Rules) -> bool:
        """
        Return whether a new call would be admitted now.

        The rule of `scripts/admit.lua`, for views and for breakers in memory; a look takes no
        probe's slot. A test compares the two over generated states.
        """
        if self.forced:
            return self.forced == "closed"
        if self.held_for_s > 0:
            return False
        if self.state == "open":
            return self.open_for_s <= 0
        return self.state == "closed" or self.probes < rules.slots(self.successes)

    @property
    def admits_all(self) -> bool:
        """Whether every call is admitted: closed and not held back, or forced closed."""
        if self.forced:
            return self.forced == "closed"
        return self.state == "closed" and not self.held_for_s

    @property
    def due(self) -> bool:
        """Whether it would admit a probe and none runs; without traffic it stays so."""
        return self.state != "closed" and not self.open_for_s and not self.probes


@dataclass(frozen=True, slots=True)
class Report:
    """
    The outcome of one admitted call.

    Args:
        token: The call's token at its admission.
        generation: The breaker's generation at the admission.
        outcome: success, failure, or neutral: not the provider's doing.
        reason: Class of the error, shown if it trips the breaker.
        retry_after_s: The provider's Retry-After; None if it sent none.
        trip: This failure proves that the provider is down: open at once.
        source: What admitted the call; Redis does not know calls that were admitted locally.
    """

    token: str
    generation: int
    outcome: Outcome
    reason: str = ""
    retry_after_s: float | None = None
    trip: bool = False
    source: Source = "redis"


@dataclass(frozen=True, slots=True)
class StorageReply:
    """
    The reply of a storage to one step.

    Args:
        accepted: admit: 1 if admitted; record: 1 if counted, 0 if stale; renew: the number of
            renewed leases.
        wait_s: After a refusal, the time until the next attempt; 0 if that cannot be known.
        rebuilt: The breaker was missing or mangled, and starts over closed.
        before: The state before this step's transition.
        transitioned: This step made a transition; without one `before` means nothing.
        view: The state of the breaker after the step.
    """

    accepted: int
    wait_s: float
    rebuilt: bool
    before: State
    transitioned: bool
    view: BreakerState

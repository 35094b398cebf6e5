"""
The real scripts and the reference model side by side: one story, told to both.

After every step they must agree on the whole hash, on the event stream, and on the answer.
`Story` is the vocabulary: what may happen, each move steered by one number, so that hypothesis
and a seeded generator tell stories in the same words.
"""

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import redis

from breaker.redis_storage import RedisStorage, Scripts
from breaker.state import Report, Rules, StorageReply
from breakwater.redis.process_name import process_name
from tests.breaker.conftest import CLOCK
from tests.support.breaker_model import Breaker, Event, Model, Numbers, Step

NAME = "x"
KEY, EVENTS = "breaker:{x}", "breaker:{x}:events"
FIELDS = {
    "failures": "failures", "successes": "successes", "generation": "generation",
    "open_until": "open_until_ms", "open_for": "open_for_ms", "held_until": "held_until_ms",
    "held_for": "held_for_ms", "since": "since_ms", "trips": "trips", "stale": "stale",
}  # fmt: skip
START_US = 1_800_000_000_000_000


class DisagreementError(AssertionError):
    """The scripts and the model do not tell the same story."""


def rules_of(numbers: Numbers) -> Rules:
    """Put a model's numbers into the breaker's words."""
    return Rules(
        fail_max=numbers.fail_max, success_threshold=numbers.threshold,
        max_probes=numbers.max_probes, reset_timeout_s=numbers.reset_ms / 1000,
        lease_s=numbers.lease_ms / 1000, open_factor=numbers.open_factor,
        open_max_s=numbers.open_max_ms / 1000, stable_s=numbers.stable_ms / 1000,
    )  # fmt: skip


def expected(b: Breaker) -> dict[str, str]:
    """Write the hash of a model's breaker, but for `seq`."""
    forced = {"forced": b.forced} if b.forced else {}
    if b.lost:
        return forced
    return {
        **forced,
        "state": b.state,
        "reason": b.reason,
        "who": b.who,
        **{field: str(getattr(b, name)) for name, field in FIELDS.items()},
        **{f"probe:{token}": str(expiry) for token, expiry in b.leases.items()},
    }


def told(events: Iterable[Event], who: str) -> list[dict[str, str]]:
    """Write the entries of a model's events."""
    return [
        {
            "from": e.before, "to": e.to, "reason": e.reason, "failures": str(e.failures),
            "successes": str(e.successes), "generation": str(e.generation),
            "open_until_ms": str(e.open_until), "trips": str(e.trips), "who": who,
            "at_ms": str(e.at),
        }
        for e in events
    ]  # fmt: skip


class Pair:
    """
    One breaker in the store and in the model.

    Args:
        client: Where the scripts run; with `decode_responses`.
        scripts: Their sources, with the test's clock in them.
        numbers: What the breaker goes by.
        breaker: Where to begin; the store is emptied and brought there.
        now_us: The server's time.
    """

    def __init__(
        self,
        client: redis.Redis,
        scripts: Scripts,
        numbers: Numbers,
        breaker: Breaker | None = None,
        now_us: int = START_US,
    ) -> None:
        self.client: Any = client
        self.storage = RedisStorage(client, scripts)
        self.model = Model(numbers, process_name())
        self.rules = rules_of(numbers)
        self.b = breaker or Breaker()
        self.now_us = now_us
        self._order: tuple[int, int] = (0, 0)
        self._put()

    def admit(self, token: str) -> Step:
        """Ask both for a call to go out."""
        step = self.model.admit(self.b, self._tick(), token)
        return self._same(step, self.storage.admit(NAME, self.rules, token))

    def record(self, token: str, generation: int, outcome: Any, **more: Any) -> Step:
        """Tell both how a call ended; `retry_ms`, `trip` and `reason` as in the model."""
        step = self.model.record(self.b, self._tick(), token, generation, outcome, **more)
        report = Report(
            token, generation, outcome, more.get("reason", ""),
            more.get("retry_ms", 0) / 1000, more.get("trip", False),
        )  # fmt: skip
        return self._same(step, self.storage.record(NAME, self.rules, report))

    def renew(self, *tokens: str) -> Step:
        """Tell both that these probes are still running."""
        step = self.model.renew(self.b, self._tick(), tokens)
        return self._same(step, self.storage.renew(NAME, self.rules, tokens))

    def force(self, to: Any = "", forced: str = "") -> Step:
        """Make both follow an operator."""
        step = self.model.force(self.b, self._tick(), to, forced)
        answer = self.storage.force(NAME, self.rules, to=to or None, forced=forced)
        return self._same(step, answer)

    def peek(self) -> None:
        """Ask both how it stands, which changes nothing."""
        seen = self.model.seen(self.b, self._tick())
        before = self._stored()
        view = self.storage.peek(NAME, Rules())
        # A peek goes by the default length of a lease, so it cannot shorten one of these.
        self._equal("peek", _view(view), self._expected_view(seen))
        self._equal("hash after a peek", self._stored(), before)

    def _tick(self) -> int:
        """No script takes less than 10 µs; some make two transitions."""
        self.now_us += 10
        self.client.set(CLOCK, self.now_us)
        self._before = self._stored() if self.b.lost else {}
        return self.now_us

    def _same(self, step: Step, answer: StorageReply) -> Step:
        self._equal("accepted", answer.accepted, step.accepted)
        self._equal("wait", round(answer.wait_s * 1000), step.wait_ms)
        self._equal("rebuilt", answer.rebuilt, step.rebuilt)
        self._equal("transitioned", answer.transitioned, bool(step.events))
        if step.events:
            self._equal("before", answer.before, step.events[-1].before)
        self._equal("view", _view(answer.view), self._expected_view(step.seen))
        self._compare_hash(step, self._stored())
        entries = self.client.xrange(EVENTS, f"({self._last}" if self._last else "-")
        self._equal("stream", [e for _, e in entries], told(step.events, self.model.who))
        if entries:
            self._last = entries[-1][0]
        self.b = step.after
        return step

    def _compare_hash(self, step: Step, stored: dict[str, str]) -> None:
        if step.after.lost:  # mangled, and nobody has written yet
            self._equal("hash", stored, self._before)
            return
        order = int(stored["generation"]), int(stored.pop("seq", "0"))
        if step.after != self.b and order <= self._order and self.now_us >= self._order[0]:
            raise DisagreementError(f"(generation, seq) {order} came after {self._order}")
        self._order = order
        defaults = {"reason": "", "who": "", **dict.fromkeys(FIELDS.values(), "0")}
        self._equal("hash", {**defaults, **stored}, expected(step.after))

    def _stored(self) -> dict[str, str]:
        try:
            return dict(self.client.hgetall(KEY))
        except redis.ResponseError:
            return {"type": self.client.type(KEY)}

    def _expected_view(self, s: Breaker) -> tuple[Any, ...]:
        now = self.now_us // 1000
        return (
            s.state, s.failures, s.successes, s.generation, max(0, s.open_until - now),
            max(0, s.held_until - now), s.since, s.trips, s.reason, s.who, s.stale,
            s.forced or None, len(s.leases),
        )  # fmt: skip

    def _equal(self, what: str, real: object, model: object) -> None:
        if real != model:
            raise DisagreementError(f"{what}: the scripts say {real}, the model {model}")

    def _put(self) -> None:
        """Bring the store to where the model stands."""
        b = self.b
        self._last = ""
        with self.client.pipeline(transaction=False) as pipe:
            pipe.delete(KEY, EVENTS)
            if b.told:
                pipe.xadd(EVENTS, {"to": b.told[0], "generation": b.told[1]})
            if fields := expected(b):
                pipe.hset(KEY, mapping=fields)
            replies = pipe.execute()
        if b.told:
            self._last = replies[1]


def _view(view: Any) -> tuple[Any, ...]:
    return (
        view.state, view.failures, view.successes, view.generation,
        round(view.open_for_s * 1000), round(view.held_for_s * 1000), view.since_ms, view.trips,
        view.reason, view.who, view.stale, view.forced, view.probes,
    )  # fmt: skip


class Story(Pair):
    """A pair, and all that may happen to it; each move is steered by a number of 0 to 99."""

    def __init__(self, client: redis.Redis, scripts: Scripts, numbers: Numbers) -> None:
        client.flushall()
        super().__init__(client, scripts, numbers)
        self.permits: list[tuple[str, int]] = []  # of calls that run
        self.past: list[tuple[str, int]] = []  # of calls that have ended, or whose client died
        self._tokens = 0

    def ask(self, n: int) -> None:
        """A new call."""
        self._tokens += 1
        self._granted(f"t{self._tokens}", self.admit(f"t{self._tokens}"))

    def ask_again(self, n: int) -> None:
        """The answer was lost: the same token asks again, of a call that runs or has ended."""
        if calls := self.permits + self.past:
            token, _ = calls[n % len(calls)]
            self.permits = [permit for permit in self.permits if permit[0] != token]
            self._granted(token, self.admit(token))

    def succeed(self, n: int) -> None:
        """A running call ends well."""
        self._end(n, "success")

    def fail(self, n: int) -> None:
        """A running call fails."""
        self._end(n, "failure", reason="Overloaded")

    def end_neutrally(self, n: int) -> None:
        """A running call ends, and it is nobody's fault."""
        self._end(n, "neutral")

    def prove(self, n: int) -> None:
        """A running call fails in a way that is proof; or does not fail, and proves nothing."""
        outcome = ("failure", "failure", "success", "neutral")[n % 4]
        self._end(n, outcome, reason="QuotaExhausted", trip=True)

    def throttle(self, n: int) -> None:
        """A running call brings a Retry-After, of more or less than an open time."""
        outcome = ("neutral", "failure", "success")[n % 3]
        self._end(n, outcome, reason="RateLimited", retry_ms=1 + n * 2)

    def replay(self, n: int) -> None:
        """A call that has ended is reported a second time."""
        if self.past:
            token, generation = self.past[n % len(self.past)]
            self.record(token, generation, ("failure", "success", "neutral")[n % 3])

    def die(self, n: int) -> None:
        """A client dies with its call."""
        if self.permits:
            self.past.append(self.permits.pop(n % len(self.permits)))

    def renew_some(self, n: int) -> None:
        """Leases of the newest calls, a probe's that runs on among them, and of one that is over."""
        if n % 2:
            self.land_on_a_deadline(0)
            self.ask(n)
            self.now_us += n % self.model.numbers.lease_ms * 1000
        self.renew(*(token for token, _ in self.permits[-1 - n % 3 :] + self.past[-1:]))

    def burst(self, n: int) -> None:
        """Calls fail until it opens, but for one or none."""
        for _ in range(self.model.numbers.fail_max - (n % 4 == 0)):
            self.ask(n)
            self.fail(99)

    def recover(self, n: int) -> None:
        """Time passes until it is due, and probes succeed, but for one or none."""
        self.land_on_a_deadline(0)
        for _ in range(self.model.numbers.threshold - (n % 4 == 0)):
            self.ask(n)
            self.succeed(99)

    def crowd(self, n: int) -> None:
        """More clients ask at once than there is room for."""
        for _ in range(2 + n % 3):
            self.ask(n)

    def pass_time(self, n: int) -> None:
        """Some ms pass, or the time that forgives trips."""
        self.now_us += n * 1000 if n < 95 else self.model.numbers.stable_ms * 1000 * (n - 94)

    def land_on_a_deadline(self, n: int) -> None:
        """Time passes to the very ms of a deadline, or the one before or after it."""
        now = self.now_us // 1000
        deadlines = [self.b.open_until, self.b.held_until, *sorted(self.b.leases.values())]
        ahead = [deadline for deadline in deadlines if deadline > now]
        if ahead:
            self.now_us += (ahead[n % len(ahead)] - now + (0, 0, -1, 1)[n // 10 % 4]) * 1000

    def land_on_a_stable_time(self, n: int) -> None:
        """Time passes to where a trip in a row is forgiven, or just not yet."""
        edge = self.b.since + self.model.numbers.stable_ms * (1 + n % 2) - (n % 3 == 0)
        self.now_us += max(0, edge - self.now_us // 1000) * 1000

    def step_back(self, n: int) -> None:
        """The server's clock steps back: after a failover, say."""
        self.now_us -= (n * n + 1) * 1000

    def operate(self, n: int) -> None:
        """An operator makes a transition, sets or ends an override, or both."""
        to = ("", "open", "half-open", "closed", "closed")[n % 5]
        self.force(to, ("", "", "none", "open", "closed")[n // 5 % 5])

    def override_by_hand(self, n: int) -> None:
        """HSET forced, or HDEL; more often HDEL, or little else would happen."""
        if self.b.lost:
            return
        forced = ("open", "closed", "", "", "")[n % 5]
        if forced:
            self.client.hset(KEY, "forced", forced)
        else:
            self.client.hdel(KEY, "forced")
        self.b = replace(self.b, forced=forced)

    def write_a_deadline_by_hand(self, n: int) -> None:
        """A deadline, or a lease nobody holds, lasts longer than it ever was planned to."""
        far = self.now_us // 1000 + 10_000
        if self.b.state == "half-open":
            self.client.hset(KEY, "probe:ghost", far)
            self.b = replace(self.b, leases={**self.b.leases, "ghost": far})
        elif self.b.open_until:
            self._write("open_until", far)
        elif self.b.held_until:
            self._write("held_until", far)

    def drop_a_field(self, n: int) -> None:
        """A field that can be done without is deleted by hand."""
        name = ("trips", "stale", "since", "held_for", "open_for")[n % 5]
        planned = {"held_for": self.b.held_until, "open_for": self.b.open_until}
        if not self.b.lost and not planned.get(name):
            self.client.hdel(KEY, FIELDS[name])
            self.b = replace(self.b, **{name: 0})

    def mangle(self, n: int) -> None:
        """A field it cannot do without is deleted or made nonsense, or the type is wrong."""
        if self.b.lost:
            return
        field = ("state", "generation", "failures", "successes", "open_until_ms")[n % 5]
        forced = self.b.forced
        if n % 7 == 0:
            self.client.delete(KEY)
            self.client.set(KEY, "nonsense")
            forced = ""
        elif n % 2:
            self.client.hdel(KEY, field)
        else:
            self.client.hset(KEY, field, ("-1", "", "nonsense", "1e300", "nan")[n // 10 % 5])
        self.b = Breaker(forced=forced, told=self.b.told)

    def lose(self, n: int) -> None:
        """The hash is gone, or everything is."""
        if n % 2:
            self.client.delete(KEY)
            self.b = Breaker(told=self.b.told)
        else:
            self.client.flushall()
            self._last = ""
            self.b = Breaker()

    def redeploy(self, n: int) -> None:
        """The clients that ask from now on go by other numbers."""
        numbers = self.model.numbers
        changed = replace(numbers, fail_max=1 + n % 4, threshold=1 + n // 4 % 3)
        self.model = Model(changed, self.model.who)
        self.rules = rules_of(changed)

    def look(self, n: int) -> None:
        """Somebody peeks."""
        self.peek()

    def _granted(self, token: str, step: Step) -> None:
        if step.accepted:
            self.permits.append((token, step.seen.generation))

    def _end(self, n: int, outcome: str, **more: Any) -> None:
        if self.permits:
            permit = self.permits.pop(n % len(self.permits) if n != 99 else -1)
            self.record(*permit, outcome, **more)
            self.past.append(permit)

    def _write(self, name: str, number: int) -> None:
        self.client.hset(KEY, FIELDS[name], number)
        self.b = replace(self.b, **{name: number})


MOVES = [name for name in vars(Story) if not name.startswith("_")]


def tell(story: Story, seed: int, length: int) -> None:
    """Tell a story of so many moves; the same seed gives the same one."""
    dice = random.Random(seed)
    for _ in range(length):
        getattr(story, dice.choice(MOVES))(dice.randrange(100))

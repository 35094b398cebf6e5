"""
The breakers in Redis: one hash each, one Lua script, one round trip, for every step.

The keys are explained at the head of `scripts/breaker.lua`. Time is Redis' own, read inside the
scripts; a client's clock decides nothing. Every `RedisError` comes out as it is: `circuit.py`
takes each of them for "Redis is away".
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

import redis
from redis.exceptions import NoScriptError

from breaker.state import BreakerState, Forced, Report, Rules, State, StorageReply, whoami

NAMES = "breakers"


def events_key(name: str) -> str:
    """Return the key of the stream that holds a breaker's last transitions."""
    return f"breaker:{{{name}}}:events"


@dataclass(frozen=True, slots=True)
class Scripts:
    """The sources of the scripts, each whole: what they share stands in front of each."""

    admit: str
    record: str
    renew: str
    force: str
    peek: str

    @classmethod
    def packaged(cls) -> "Scripts":
        """Read the scripts this package ships."""
        folder = files("breaker") / "scripts"
        shared = (folder / "breaker.lua").read_text()
        return cls(*(shared + (folder / f"{name}.lua").read_text() for name in cls.__slots__))


class RedisStorage:
    """
    Run the scripts.

    Args:
        client: Any redis-py client; `decode_responses` may be set or not. It is used as it is,
            with its own timeouts and retries.
        scripts: The sources to run; tests put a clock of their own into them.
    """

    def __init__(self, client: redis.Redis, scripts: Scripts | None = None) -> None:
        self.client = client
        self.scripts = scripts or Scripts.packaged()
        self._sha = {
            source: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            for source in (getattr(self.scripts, name) for name in Scripts.__slots__)
        }

    def admit(self, name: str, rules: Rules, token: str) -> StorageReply:
        """Ask for a call to go out; asking again with the same token is the same grant."""
        return self._run(
            self.scripts.admit, name, rules, token, rules.success_threshold, rules.max_probes
        )

    def record(self, name: str, rules: Rules, report: Report) -> StorageReply:
        """Tell how a call ended; never to be repeated, it would count twice."""
        return self._run(
            self.scripts.record, name, rules,
            report.token, report.generation, report.outcome, report.reason,
            _ms(rules.retry_after_s(report.retry_after_s)), int(report.trip),
            rules.success_threshold, rules.fail_max,
            _ms(rules.reset_timeout_s), rules.open_factor,
            _ms(max(rules.open_max_s, rules.reset_timeout_s)),
            1 + random.random() * rules.open_jitter, _ms(rules.stable_s),
        )  # fmt: skip

    def renew(self, name: str, rules: Rules, tokens: Iterable[str]) -> StorageReply:
        """Let the leases of probes still running begin again; expired ones stay expired."""
        return self._run(self.scripts.renew, name, rules, *tokens)

    def force(
        self, name: str, rules: Rules, *, to: State | None = None, forced: Forced | str = ""
    ) -> StorageReply:
        """Make a manual transition, and set (open, closed) or remove (none) the override."""
        return self._run(
            self.scripts.force, name, rules, to or "", forced, _ms(rules.reset_timeout_s)
        )

    def peek(self, name: str) -> BreakerState:
        """Read how a breaker stands; writes nothing."""
        return self._run(self.scripts.peek, name, Rules()).view

    def peek_all(self) -> list[BreakerState]:
        """Read every known breaker, by name: one round trip for the names, one for the states."""
        names = self.names()
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.evalsha(self._sha[self.scripts.peek], *_arguments(name, Rules(), ()))
        replies = pipe.execute(raise_on_error=False)
        return [
            self.peek(name) if isinstance(reply, Exception) else _answer(name, reply).view
            for name, reply in zip(names, replies, strict=True)
        ]

    def names(self) -> list[str]:
        """Read the names of all breakers, sorted."""
        return sorted(_text(name) for name in cast("set[Any]", self.client.smembers(NAMES)))

    def add_name(self, name: str) -> None:
        """Make a breaker known; its own set, because the scripts keep to one Cluster slot."""
        self.client.sadd(NAMES, name)

    def events(self, name: str, count: int) -> list[dict[str, str]]:
        """Read the last transitions, newest first; fields as in `transition()` of `breaker.lua`."""
        entries = cast("list[Any]", self.client.xrevrange(events_key(name), count=count))
        return [
            {"id": _text(entry), **{_text(key): _text(value) for key, value in fields.items()}}
            for entry, fields in entries
        ]

    def _run(self, source: str, name: str, rules: Rules, *args: Any) -> StorageReply:
        arguments = _arguments(name, rules, args)
        try:
            reply = self.client.evalsha(self._sha[source], *arguments)
        except NoScriptError:  # it did not run, so running it now is no repetition
            reply = self.client.eval(source, *arguments)
        return _answer(name, cast("list[Any]", reply))


def _arguments(name: str, rules: Rules, args: Sequence[Any]) -> tuple[Any, ...]:
    return 2, f"breaker:{{{name}}}", events_key(name), whoami(), _ms(rules.lease_s), *args


def _answer(name: str, reply: list[Any]) -> StorageReply:
    """Read what `view()` of `breaker.lua` answers."""
    (verdict, wait_ms, rebuilt, transitioned, before, state, failures, successes, generation, seq,
     open_for_ms, held_for_ms, since_ms, trips, reason, who, stale, forced, probes) = map(
        _value, reply
    )  # fmt: skip
    view = BreakerState(
        name=name, state=state, failures=failures, successes=successes, generation=generation,
        seq=seq, open_for_s=open_for_ms / 1000, held_for_s=held_for_ms / 1000, since_ms=since_ms,
        trips=trips, reason=reason, who=who, stale=stale, forced=forced or None, probes=probes,
        source="redis",
    )  # fmt: skip
    return StorageReply(verdict, wait_ms / 1000, bool(rebuilt), before, bool(transitioned), view)


def _value(item: Any) -> Any:
    return item.decode() if isinstance(item, bytes) else item


def _text(item: Any) -> str:
    return str(_value(item))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

"""
Breakers in Redis: one hash each; each step is one Lua script and one round trip.

The head of `scripts/breaker.lua` explains the keys. Time is Redis' own, read inside the scripts; no
client's clock decides anything. Each `RedisError` passes unchanged: `failover.py` takes any of them
as an outage.
"""

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias, cast

import redis
from redis.exceptions import NoScriptError

from breaker.state import BreakerState, Forced, Report, Rules, State, StorageReply
from breakwater.redis.process_name import process_name
from breakwater.redis.script_arguments import named
from breakwater.redis.text import to_text

NAMES_KEY = "breakers"

Argument = str | int | float | list[str]
RawText = bytes | str
"""A text in a reply: str if the client decodes replies."""
_Item: TypeAlias = Any
"""One value of a script's reply: an int, or a `RawText`; the scripts fix which stands where."""


def events_key(name: str) -> str:
    """Return the key of the stream that holds a breaker's last transitions."""
    return f"breaker:{{{name}}}:events"


@dataclass(frozen=True, slots=True)
class Scripts:
    """The sources of the scripts; each begins with the part that all of them share."""

    admit: str
    record: str
    renew: str
    force: str
    peek: str

    @classmethod
    def packaged(cls) -> "Scripts":
        """Read the scripts of this package."""
        folder = files("breaker") / "scripts"
        shared = (folder / "breaker.lua").read_text()
        return cls(*(shared + (folder / f"{name}.lua").read_text() for name in cls.__slots__))


class RedisStorage:
    """
    A `FleetStorage` in Redis.

    Args:
        client: Any redis-py client, with or without `decode_responses`. Its timeouts and retries
            apply.
        scripts: The sources to run; tests use scripts with a clock that they can move.
    """

    def __init__(self, client: redis.Redis, scripts: Scripts | None = None) -> None:
        self.client = client
        self.scripts = scripts or Scripts.packaged()
        self._sha = {
            source: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            for source in (getattr(self.scripts, name) for name in Scripts.__slots__)
        }

    def admit(self, name: str, rules: Rules, token: str) -> StorageReply:
        """Admit or refuse a call; a token that was admitted is admitted again."""
        return self._run(
            self.scripts.admit, name, rules, token=token,
            success_threshold=rules.success_threshold, max_probes=rules.max_probes,
        )  # fmt: skip

    def record(self, name: str, rules: Rules, report: Report) -> StorageReply:
        """Count the outcome of an admitted call. A repetition would count twice."""
        return self._run(
            self.scripts.record, name, rules,
            token=report.token, generation=report.generation,
            outcome=report.outcome, reason=report.reason,
            retry_after_ms=_ms(rules.retry_after_s(report.retry_after_s)), is_proof=report.trip,
            success_threshold=rules.success_threshold, fail_max=rules.fail_max,
            open_ms=_ms(rules.reset_timeout_s), factor=rules.open_factor,
            cap_ms=_ms(max(rules.open_max_s, rules.reset_timeout_s)),
            jitter=1 + random.random() * rules.open_jitter, stable_ms=_ms(rules.stable_s),
        )  # fmt: skip

    def renew(self, name: str, rules: Rules, tokens: Iterable[str]) -> StorageReply:
        """Restart the leases of running probes; an expired lease stays expired."""
        return self._run(self.scripts.renew, name, rules, tokens=list(tokens))

    def force(
        self, name: str, rules: Rules, *, to: State | None = None, forced: Forced | str = ""
    ) -> StorageReply:
        """Make a manual transition, and set (open, closed) or remove (none) the override."""
        return self._run(
            self.scripts.force, name, rules,
            to=to or "", forced=forced, open_ms=_ms(rules.reset_timeout_s),
        )  # fmt: skip

    def peek(self, name: str, rules: Rules) -> BreakerState:
        """Read the state of a breaker; nothing is written."""
        return self._run(self.scripts.peek, name, rules).view

    def peek_all(self) -> list[BreakerState]:
        """Read all breakers, by name: one round trip for the names, one for the states."""
        names, rules = self.names(), Rules()
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.evalsha(self._sha[self.scripts.peek], 2, *_arguments(name, rules, {}))
        views = []
        for name, reply in zip(names, pipe.execute(raise_on_error=False), strict=True):
            if isinstance(reply, Exception):  # such as NoScriptError, which `peek` handles
                views.append(self.peek(name, rules))
            else:
                views.append(_parse(name, reply).view)
        return views

    def names(self) -> list[str]:
        """Read the names of all breakers, sorted."""
        return sorted(to_text(name) for name in self.client.smembers(NAMES_KEY))

    def add_name(self, name: str) -> None:
        """Add a name to the set of all breakers; no script does, as each stays in one slot."""
        self.client.sadd(NAMES_KEY, name)

    def events(self, name: str, count: int) -> list[dict[str, str]]:
        """Read the last transitions, newest first; fields as in `transition()` of `breaker.lua`."""
        entries = cast(
            "list[tuple[RawText, dict[RawText, RawText]]]",
            self.client.xrevrange(events_key(name), count=count),
        )
        return [
            {
                "id": to_text(entry),
                **{to_text(key): to_text(value) for key, value in fields.items()},
            }
            for entry, fields in entries
        ]

    def _run(self, source: str, name: str, rules: Rules, **args: Argument) -> StorageReply:
        arguments = _arguments(name, rules, args)
        try:
            reply = self.client.evalsha(self._sha[source], 2, *arguments)
        except NoScriptError:  # it has not run, so to run it now does not repeat it
            reply = self.client.eval(source, 2, *arguments)
        return _parse(name, cast("list[_Item]", reply))


def _arguments(name: str, rules: Rules, args: Mapping[str, Argument]) -> tuple[str, str, str]:
    arguments = named(who=process_name(), lease_ms=_ms(rules.lease_s), **args)
    return f"breaker:{{{name}}}", events_key(name), arguments


def _parse(name: str, reply: list[_Item]) -> StorageReply:
    """Parse the reply of a script, as `view()` of `breaker.lua` writes it."""
    (verdict, wait_ms, rebuilt, transitioned, before, state, failures, successes, generation, seq,
     open_for_ms, held_for_ms, since_ms, trips, reason, who, stale, forced, probes) = map(
        _decoded, reply
    )  # fmt: skip
    view = BreakerState(
        name=name, state=state, failures=failures, successes=successes, generation=generation,
        seq=seq, open_for_s=open_for_ms / 1000, held_for_s=held_for_ms / 1000, since_ms=since_ms,
        trips=trips, reason=reason, who=who, stale=stale, forced=forced or None, probes=probes,
        source="redis",
    )  # fmt: skip
    return StorageReply(verdict, wait_ms / 1000, bool(rebuilt), before, bool(transitioned), view)


def _decoded(item: _Item) -> _Item:
    if isinstance(item, bytes):
        return item.decode()
    return item


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

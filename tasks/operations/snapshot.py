"""
A snapshot for a dashboard: the fleet, the breakers, the ledger's last minutes, and events.

`breakwater top` draws it; other displays may.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

import redis
from sqlalchemy.exc import SQLAlchemyError

from breaker import Breakers, BreakerState
from breakwater.errors import ConfigError
from breakwater.messaging.journal import Operations
from breakwater.messaging.keys import PARKED_EVENTS
from breakwater.messaging.names import queue_of
from breakwater.redis.text import to_text
from tasks.ledger.attempt_filter import AttemptFilter
from tasks.ledger.database import Database
from tasks.ledger.summary import GroupSummary, first_started_ms, summarise
from tasks.operations.dead_letters import Entries
from tasks.operations.fleet import Fleet, FleetSnapshot

WINDOW_S = 300
"""The period of the rates, latencies and costs."""
MIN_SPAN_S = 1.0
LEDGER_INTERVAL_S = 5.0
MAX_EVENTS = 30
COLOURS = {"open": "red", "closed": "green", "half-open": "yellow"}


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a breaker or of a parked queue, or a change by an operator."""

    at_ms: int
    text: str
    colour: str = ""


@dataclass(slots=True)
class Rates:
    """Summaries of the ledger's last minutes."""

    providers: dict[str, GroupSummary] = field(default_factory=dict)
    roles: dict[str, GroupSummary] = field(default_factory=dict)
    serving: dict[str, Counter[str]] = field(default_factory=dict)
    """For each role, the number of answers by provider."""
    missing: str = ""
    """Why the ledger cannot be read; empty if it can."""
    span_s: float = WINDOW_S
    """The period of the summaries: WINDOW_S, or the age of a younger ledger."""


@dataclass(frozen=True, slots=True)
class DashboardSnapshot:
    """What a dashboard shows at one moment."""

    fleet: FleetSnapshot
    breakers: list[BreakerState]
    rates: Rates
    events: list[Event]


class Dashboard:
    """
    Takes snapshots of a fleet, one after another.

    Args:
        client: Any redis-py client.
        breakers: Of the same Redis.
    """

    def __init__(self, client: redis.Redis, breakers: Breakers) -> None:
        self._client = client
        self._breakers = breakers
        self._fleet = Fleet(client)
        self._database: Database | None = None
        self._rates = Rates()
        self._read_at = 0.0

    def snapshot(self, roles: frozenset[str]) -> DashboardSnapshot:
        """
        Take a snapshot; its rates are at most five seconds old.

        Args:
            roles: Their queues are included even if no worker has ever consumed them.

        Raises:
            RedisError: Redis is away.
        """
        fleet, states = self._fleet.snapshot(roles), self._breakers.peek_all()
        if time.monotonic() - self._read_at > LEDGER_INTERVAL_S:
            self._rates, self._read_at = self._read_ledger(fleet.now_ms), time.monotonic()
        return DashboardSnapshot(fleet, states, self._rates, self._read_events(states))

    def _read_ledger(self, now_ms: int) -> Rates:
        where = AttemptFilter(since_ms=now_ms - WINDOW_S * 1000)
        try:
            self._database = self._database or Database(create=False)
            by_provider = summarise(self._database, ["provider"], where)
            by_role = summarise(self._database, ["role"], where)
            by_both = summarise(self._database, ["role", "provider"], where)
            first_ms = first_started_ms(self._database) or 0
        except ConfigError as fault:
            return Rates(missing=str(fault))
        except SQLAlchemyError as fault:
            return Rates(missing=f"the ledger does not answer ({type(fault).__name__})")
        rates = Rates(
            {summary.group[0]: summary for summary in by_provider},
            {summary.group[0]: summary for summary in by_role},
            span_s=min(WINDOW_S, max(MIN_SPAN_S, (now_ms - first_ms) / 1000)),
        )
        for summary in by_both:
            role, provider = summary.group
            if answers := summary.outcomes["succeeded"]:
                rates.serving.setdefault(role, Counter())[provider] = answers
        return rates

    def _read_events(self, states: list[BreakerState]) -> list[Event]:
        events = [
            _transition(state.name, entry)
            for state in states
            for entry in self._breakers.events(state.name, MAX_EVENTS)
        ]
        parked = cast("Entries", self._client.xrevrange(PARKED_EVENTS, count=MAX_EVENTS))
        for _, entry in parked:
            events.append(_parking({to_text(k): to_text(v) for k, v in entry.items()}))
        for operation in islice(Operations(self._client).find(), MAX_EVENTS):
            targets = ", ".join(operation.targets[:3])
            text = f"{operation.who}: {operation.what} {targets}"
            events.append(Event(operation.at_ms, text, "cyan"))
        return sorted(events, key=lambda event: -event.at_ms)[:MAX_EVENTS]


def _transition(breaker: str, entry: Mapping[str, str]) -> Event:
    text = f"breaker {breaker}: {entry['from']} → {entry['to']}"
    if entry["reason"]:
        text += f" ({entry['reason']})"
    return Event(int(entry["at_ms"]), text, COLOURS.get(entry["to"], ""))


def _parking(entry: Mapping[str, str]) -> Event:
    role = entry["queue"].removeprefix(queue_of(""))
    change, colour = "parked", "red"
    if entry["to"] == "open":
        change, colour = "consumed again", "green"
    return Event(int(entry["at_ms"]), f"role {role}: {change} ({entry['reason']})", colour)

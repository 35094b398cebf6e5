"""What `breakwater top` looks at: breakers, queues, workers, the ledger's last minutes, events."""

import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import redis
from sqlalchemy.exc import SQLAlchemyError

from breaker import Breakers, BreakerState
from breakwater.errors import ConfigError
from breakwater.messaging.journal import Operations
from breakwater.messaging.names import queue_of
from breakwater.redis.text import to_text
from tasks.ledger.database import Database
from tasks.ledger.summary import AttemptFilter, GroupSummary, first_started_ms, summarise
from tasks.operations.fleet import Fleet, FleetSnapshot

WINDOW_S = 300
"""The time that rates, latencies and costs are of."""
LEAST_SPAN_S = 1.0
LEDGER_EVERY_S = 5.0
EVENTS = 30


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed: a breaker, a parked queue, an operator's deed."""

    at_ms: int
    what: str
    colour: str = ""


@dataclass(slots=True)
class Rates:
    """Sums of the ledger's last minutes."""

    providers: dict[str, GroupSummary] = field(default_factory=dict)
    roles: dict[str, GroupSummary] = field(default_factory=dict)
    serving: dict[str, Counter[str]] = field(default_factory=dict)
    """By role: answers by provider."""
    missing: str = ""
    """Why there are none."""
    span_s: float = WINDOW_S
    """The time that the sums are of: shorter while the ledger itself is younger."""


@dataclass(frozen=True, slots=True)
class DashboardSnapshot:
    """The fleet at one moment."""

    fleet: FleetSnapshot
    breakers: list[BreakerState]
    rates: Rates
    events: list[Event]


class Dashboard:
    """
    Look at a fleet, again and again.

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
        See everything now; the ledger as it was at most five seconds ago.

        Raises:
            RedisError: Redis is away.
        """
        view, states = self._fleet.snapshot(roles), self._breakers.peek_all()
        if time.monotonic() - self._read_at > LEDGER_EVERY_S:
            self._rates, self._read_at = self._read_ledger(view.now_ms), time.monotonic()
        return DashboardSnapshot(view, states, self._rates, self._read_events(states))

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
            {line.group[0]: line for line in by_provider},
            {line.group[0]: line for line in by_role},
            span_s=min(WINDOW_S, max(LEAST_SPAN_S, (now_ms - first_ms) / 1000)),
        )
        for line in by_both:
            role, provider = line.group
            if answered := line.outcomes["succeeded"]:
                rates.serving.setdefault(role, Counter())[provider] = answered
        return rates

    def _read_events(self, states: list[BreakerState]) -> list[Event]:
        events = [
            _transition(state.name, told)
            for state in states
            for told in self._breakers.events(state.name, EVENTS)
        ]
        parked = cast("list[Any]", self._client.xrevrange("parked:events", count=EVENTS))
        for _, fields in parked:
            events.append(_parking({to_text(k): to_text(v) for k, v in fields.items()}))
        for each in islice(Operations(self._client).find(), EVENTS):
            told = f"{each.who}: {each.what} {', '.join(each.targets[:3])}"
            events.append(Event(each.at_ms, told, "cyan"))
        return sorted(events, key=lambda event: -event.at_ms)[:EVENTS]


def _transition(name: str, told: dict[str, str]) -> Event:
    colour = {"open": "red", "closed": "green", "half-open": "yellow"}.get(told["to"], "")
    why = f" ({told['reason']})" if told["reason"] else ""
    return Event(int(told["at_ms"]), f"breaker {name}: {told['from']} → {told['to']}{why}", colour)


def _parking(told: dict[str, str]) -> Event:
    role = told["queue"].removeprefix(queue_of(""))
    if told["to"] == "open":
        return Event(int(told["at_ms"]), f"role {role}: consumed again ({told['reason']})", "green")
    return Event(int(told["at_ms"]), f"role {role}: parked ({told['reason']})", "red")

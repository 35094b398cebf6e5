"""
Sums over the ledger: how much, how well, how fast and for how much money.

Whole days come from their sums, so that five million attempts take milliseconds; the parts of days
at both ends, and whatever is filtered by metadata, from the attempts themselves.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, String, Table, case, cast, func, select

from breakwater.attempt import NOT_CALLED
from tasks.ledger.database import Database
from tasks.ledger.sums import DAY_MS
from tasks.ledger.tables import (
    DIMENSIONS,
    PICO,
    SLOTS,
    SUMS,
    TIMES,
    TOKENS,
    attempts,
    bucket_of,
    day_times,
    days,
    middle_of,
)

OUTCOMES = ("succeeded", "failed", "abandoned", "rejected", "cached")
GROUPS = ("provider", "model", "role", "outcome", "day")
PERCENTILES = (50, 95, 99)
FOREVER_MS = 2**53
_MIDDLES = [middle_of(bucket) for bucket in range(bucket_of(FOREVER_MS) + len(SLOTS))]

Times = Iterator[tuple[Mapping[Any, Any], list[tuple[float, int]]]]
"""Groups with a `time`, and how many attempts took how many ms."""


@dataclass(frozen=True, slots=True)
class AttemptFilter:
    """Which attempts: those that fit all that is given, begun in [since_ms, until_ms)."""

    provider: str | None = None
    model: str | None = None
    role: str | None = None
    outcome: str | None = None
    since_ms: int = 0
    until_ms: int = FOREVER_MS
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Values as texts: 5 is found by "5"."""

    def conditions_on(self, table: Table) -> list[ColumnElement[bool]]:
        """Return the conditions on what both the days and the attempts have."""
        names = ("provider", "model", "role", "outcome")
        wanted = ((name, getattr(self, name)) for name in names)
        return [table.c[name] == value for name, value in wanted if value is not None]

    def conditions_on_attempts(self) -> list[ColumnElement[bool]]:
        """Return all conditions on attempts."""
        return [
            *self.conditions_on(attempts),
            attempts.c.started_ms >= self.since_ms,
            attempts.c.started_ms < self.until_ms,
            *(
                cast(attempts.c.metadata[key].as_string(), String) == value
                for key, value in self.metadata.items()
            ),
        ]


@dataclass(slots=True)
class GroupSummary:
    """The sums of one group."""

    group: tuple[str, ...]
    """In the order of what was grouped by; days as 2026-11-21."""
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Of calls that failed or were abandoned, by class."""
    sums: Counter[str] = field(default_factory=Counter)
    times: dict[str, Counter[float]] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        """How many there were, rejected and cached ones too."""
        return self.outcomes.total()

    @property
    def calls(self) -> int:
        """How many went out."""
        return self.attempts - sum(self.outcomes[name] for name in NOT_CALLED)

    @property
    def success_rate(self) -> float | None:
        """Of the calls; None if there were none."""
        return self.outcomes["succeeded"] / self.calls if self.calls else None

    @property
    def failover_share(self) -> float | None:
        """Of the answers, those not from the first target of the chain; None without answers."""
        answered = self.outcomes["succeeded"]
        return self.sums["failovers"] / answered if answered else None

    @property
    def cost_usd(self) -> Decimal:
        """US dollars, without the calls that have no known price."""
        return Decimal(self.sums["cost_pico_usd"]) / PICO

    def percentile(self, time: str, share: int) -> int | None:
        """Return how long so many in a hundred took at most, in ms, within 1 %; None of none."""
        counts = self.times.get(time)
        if not counts:
            return None
        rank, seen = -(-counts.total() * share // 100), 0
        for ms in sorted(counts):
            seen += counts[ms]
            if seen >= rank:
                return round(ms)
        return None

    def as_dict(self, by: Sequence[str]) -> dict[str, Any]:
        """Return it as a JSON object; shares are between 0 and 1."""
        return {
            **dict(zip(by, self.group, strict=True)),
            "attempts": self.attempts,
            **{name: self.outcomes[name] for name in OUTCOMES},
            "success_rate": self.success_rate,
            "errors": dict((+self.errors).most_common()),
            "failover_share": self.failover_share,
            **{
                time.replace("_ms", f"_p{share}_ms"): self.percentile(time, share)
                for time in TIMES
                for share in PERCENTILES
            },
            **{kind: self.sums[kind] for kind in TOKENS},
            "cost_usd": f"{self.cost_usd.normalize():f}",
            "unpriced": self.sums["unpriced"],
        }


def first_started_ms(database: Database) -> int | None:
    """Return when the ledger's first attempt began, in ms since the epoch; None if it is empty."""
    with database.engine.connect() as connection:
        found: int | None = connection.scalar(select(func.min(attempts.c.started_ms)))
    return found


def summarise(database: Database, by: Sequence[str], where: AttemptFilter) -> list[GroupSummary]:
    """
    Sum the attempts up.

    Args:
        by: Some of GROUPS.
        where: Which attempts.

    Returns:
        A line for each group, in their order; without groups one line, or none.

    Raises:
        SQLAlchemyError: The database is away.
    """
    lines: dict[tuple[str, ...], GroupSummary] = {}
    # Times of answers; of failures only where they stand apart.
    apart = "outcome" in by or where.outcome is not None
    with database.reading() as connection:
        for part in _parts(where):
            for found in part.sums(connection, by):
                line = _line(lines, by, found)
                number = int(found["attempts"])  # PostgreSQL's sums are decimals
                line.outcomes[found["outcome"]] += number
                if found["error"] and found["outcome"] not in NOT_CALLED:
                    line.errors[found["error"]] += number
                sums = {name: int(found[name]) for name in SUMS}
                if found["outcome"] != "succeeded":
                    sums["failovers"] = 0
                line.sums.update(sums)
            for found, counts in part.times(connection, by, apart=apart):
                times = _line(lines, by, found).times.setdefault(found["time"], Counter())
                for ms, number in counts:
                    times[ms] += number
    return [lines[key] for key in sorted(lines) if lines[key].attempts]


class _Days:
    """Whole days, from their sums."""

    def __init__(self, where: AttemptFilter, first: int, end: int) -> None:
        self._where = where
        self._first, self._end = first, end

    def sums(self, connection: Connection, by: Sequence[str]) -> Iterable[Mapping[Any, Any]]:
        keys = [days.c[name] for name in _columns(by)]
        sums = (func.sum(days.c[name]).label(name) for name in SUMS)
        return connection.execute(
            select(*keys, *sums).where(*self._conditions(days)).group_by(*keys)
        ).mappings()

    def times(self, connection: Connection, by: Sequence[str], *, apart: bool) -> Times:
        keys = [day_times.c[name] for name in (*by, "time", "bucket_group")]
        found = connection.execute(
            select(*keys, *(func.sum(day_times.c[slot]).label(slot) for slot in SLOTS))
            .where(*self._conditions(day_times), *_answers(day_times, apart=apart))
            .group_by(*keys)
        )
        for row in found.mappings():
            first = row["bucket_group"] * len(SLOTS)
            yield (
                row,
                [
                    (_MIDDLES[first + slot], int(row[name]))
                    for slot, name in enumerate(SLOTS)
                    if row[name]
                ],
            )

    def _conditions(self, table: Table) -> list[ColumnElement[bool]]:
        return [
            *self._where.conditions_on(table),
            table.c.day >= self._first,
            table.c.day < self._end,
        ]


class _Attempts:
    """Any time, from the attempts themselves."""

    def __init__(self, where: AttemptFilter) -> None:
        self._where = where

    def sums(self, connection: Connection, by: Sequence[str]) -> Iterable[Mapping[Any, Any]]:
        keys = self._keys(_columns(by))
        unpriced = case((attempts.c.price_source == "unpriced", 1), else_=0)
        return connection.execute(
            select(
                *keys,
                func.count().label("attempts"),
                func.sum(attempts.c.failover).label("failovers"),
                func.sum(unpriced).label("unpriced"),
                func.coalesce(func.sum(attempts.c.cost_pico_usd), 0).label("cost_pico_usd"),
                *(func.coalesce(func.sum(attempts.c[kind]), 0).label(kind) for kind in TOKENS),
            )
            .where(*self._where.conditions_on_attempts())
            .group_by(*keys)
        ).mappings()

    def times(self, connection: Connection, by: Sequence[str], *, apart: bool) -> Times:
        for time in TIMES:
            keys = self._keys(by)
            found = connection.execute(
                select(*keys, attempts.c[time].label("ms"), func.count().label("attempts"))
                .where(
                    *self._where.conditions_on_attempts(),
                    *_answers(attempts, apart=apart),
                    attempts.c[time].is_not(None),
                    attempts.c.outcome.not_in(NOT_CALLED),
                )
                .group_by(*keys, attempts.c[time])
            )
            for row in found.mappings():
                yield {**row, "time": time}, [(row["ms"], row["attempts"])]

    def _keys(self, names: Iterable[str]) -> list[ColumnElement[Any]]:
        day = (attempts.c.started_ms // DAY_MS).label("day")
        return [day if name == "day" else attempts.c[name] for name in names]


def _parts(where: AttemptFilter) -> list[_Days | _Attempts]:
    first, end = -(-where.since_ms // DAY_MS), where.until_ms // DAY_MS
    if where.metadata or first >= end:
        return [_Attempts(where)]
    parts: list[_Days | _Attempts] = [_Days(where, first, end)]
    if where.since_ms < first * DAY_MS:
        parts.append(_Attempts(replace(where, until_ms=first * DAY_MS)))
    if end * DAY_MS < where.until_ms < FOREVER_MS:
        parts.append(_Attempts(replace(where, since_ms=end * DAY_MS)))
    return parts


def _answers(table: Table, *, apart: bool) -> list[ColumnElement[bool]]:
    """Leave out how long failures took, unless they stand apart."""
    return [] if apart else [table.c.outcome == "succeeded"]


def _columns(by: Sequence[str]) -> list[str]:
    """Name what the sums of a query are told apart by."""
    wanted = {*by, "outcome", "error"}
    return [name for name in ("day", *DIMENSIONS) if name in wanted]


def _line(
    lines: dict[tuple[str, ...], GroupSummary], by: Sequence[str], found: Mapping[Any, Any]
) -> GroupSummary:
    group = tuple(_day(found["day"]) if name == "day" else str(found[name]) for name in by)
    if group not in lines:
        lines[group] = GroupSummary(group)
    return lines[group]


def _day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()

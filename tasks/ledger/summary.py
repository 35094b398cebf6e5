"""
Summaries of the ledger: number of attempts, success, latency, tokens and cost.

Whole days are read from the daily sums, so that five million attempts take milliseconds. The parts
of days at both ends, and everything that is filtered by metadata, are read from the attempts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    String,
    Table,
    case,
    cast,
    func,
    select,
)

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

Times = Iterator[tuple[RowMapping, str, list[tuple[float, int]]]]
"""A group, one of TIMES, and pairs: a time in ms, and the number of attempts that took it."""


@dataclass(frozen=True, slots=True)
class AttemptFilter:
    """Selects attempts that match every value which is set, and began in [since_ms, until_ms)."""

    provider: str | None = None
    model: str | None = None
    role: str | None = None
    outcome: str | None = None
    since_ms: int = 0
    until_ms: int = FOREVER_MS
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Values as strings: "5" matches 5."""

    def conditions_on(self, table: Table) -> list[ColumnElement[bool]]:
        """Return the conditions on the columns that daily sums and attempts share."""
        names = ("provider", "model", "role", "outcome")
        wanted = ((name, getattr(self, name)) for name in names)
        return [table.c[name] == value for name, value in wanted if value is not None]

    def conditions_on_attempts(self) -> list[ColumnElement[bool]]:
        """Return all conditions on the table of attempts."""
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
    """The summary of one group of attempts."""

    group: tuple[str, ...]
    """The values of the columns that attempts are grouped by; days as 2026-11-21."""
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Failed and abandoned calls by error class."""
    sums: Counter[str] = field(default_factory=Counter)
    times: dict[str, Counter[float]] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        """The number of attempts, including rejected and cached ones."""
        return self.outcomes.total()

    @property
    def calls(self) -> int:
        """The number of attempts that called a provider."""
        return self.attempts - sum(self.outcomes[name] for name in NOT_CALLED)

    @property
    def success_rate(self) -> float | None:
        """The share of calls that succeeded; None without calls."""
        if not self.calls:
            return None
        return self.outcomes["succeeded"] / self.calls

    @property
    def failover_share(self) -> float | None:
        """The share of answers not from the chain's first target; None without answers."""
        answered = self.outcomes["succeeded"]
        if not answered:
            return None
        return self.sums["failovers"] / answered

    @property
    def cost_usd(self) -> Decimal:
        """US dollars, without calls whose price is unknown."""
        return Decimal(self.sums["cost_pico_usd"]) / PICO

    def percentile(self, time: str, share: int) -> int | None:
        """
        Return a percentile of one of TIMES, in ms, within 1 %.

        Args:
            share: 1 to 100.

        Returns:
            None if no attempt has such a time.
        """
        counts = self.times.get(time)
        if not counts:
            return None
        rank, cumulative = -(-counts.total() * share // 100), 0
        for ms in sorted(counts):
            cumulative += counts[ms]
            if cumulative >= rank:
                return round(ms)
        return None

    def as_dict(self, by: Sequence[str]) -> dict[str, object]:
        """Return the summary as a JSON object; shares are between 0 and 1."""
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
        started_ms: int | None = connection.scalar(select(func.min(attempts.c.started_ms)))
    return started_ms


def summarise(database: Database, by: Sequence[str], where: AttemptFilter) -> list[GroupSummary]:
    """
    Summarise attempts.

    Args:
        by: Some of GROUPS.
        where: Which attempts.

    Returns:
        One summary for each group, sorted by group; without groups one summary, or none.

    Raises:
        SQLAlchemyError: The database is away.
    """
    summaries: dict[tuple[str, ...], GroupSummary] = {}
    # Latencies of failures count only where they are not mixed with those of answers.
    with_failures = "outcome" in by or where.outcome is not None
    with database.reading() as connection:
        for part in _parts(where):
            for row in part.sums(connection, by):
                _add_sums(_summary(summaries, by, row), row)
            for row, time, counts in part.times(connection, by, with_failures=with_failures):
                times = _summary(summaries, by, row).times.setdefault(time, Counter())
                for ms, number in counts:
                    times[ms] += number
    return [summaries[group] for group in sorted(summaries) if summaries[group].attempts]


def _add_sums(summary: GroupSummary, row: RowMapping) -> None:
    number = int(row["attempts"])  # PostgreSQL's sums are decimals
    summary.outcomes[row["outcome"]] += number
    if row["error"] and row["outcome"] not in NOT_CALLED:
        summary.errors[row["error"]] += number
    sums = {name: int(row[name]) for name in SUMS}
    if row["outcome"] != "succeeded":
        sums["failovers"] = 0
    summary.sums.update(sums)


class _Days:
    """Reads whole days from the daily sums."""

    def __init__(self, where: AttemptFilter, first: int, end: int) -> None:
        self._where = where
        self._first, self._end = first, end

    def sums(self, connection: Connection, by: Sequence[str]) -> Iterable[RowMapping]:
        keys = [days.c[name] for name in _columns(by)]
        columns = (func.sum(days.c[name]).label(name) for name in SUMS)
        return connection.execute(
            select(*keys, *columns).where(*self._conditions(days)).group_by(*keys)
        ).mappings()

    def times(self, connection: Connection, by: Sequence[str], *, with_failures: bool) -> Times:
        keys = [day_times.c[name] for name in (*by, "time", "bucket_group")]
        rows = connection.execute(
            select(*keys, *(func.sum(day_times.c[slot]).label(slot) for slot in SLOTS))
            .where(*self._conditions(day_times), *_answers(day_times, with_failures=with_failures))
            .group_by(*keys)
        )
        for row in rows.mappings():
            first = row["bucket_group"] * len(SLOTS)
            counts = [
                (_MIDDLES[first + slot], int(row[name]))
                for slot, name in enumerate(SLOTS)
                if row[name]
            ]
            yield row, row["time"], counts

    def _conditions(self, table: Table) -> list[ColumnElement[bool]]:
        return [
            *self._where.conditions_on(table),
            table.c.day >= self._first,
            table.c.day < self._end,
        ]


class _Attempts:
    """Reads any period from the attempts."""

    def __init__(self, where: AttemptFilter) -> None:
        self._where = where

    def sums(self, connection: Connection, by: Sequence[str]) -> Iterable[RowMapping]:
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

    def times(self, connection: Connection, by: Sequence[str], *, with_failures: bool) -> Times:
        for time in TIMES:
            keys = self._keys(by)
            rows = connection.execute(
                select(*keys, attempts.c[time].label("ms"), func.count().label("attempts"))
                .where(
                    *self._where.conditions_on_attempts(),
                    *_answers(attempts, with_failures=with_failures),
                    attempts.c[time].is_not(None),
                    attempts.c.outcome.not_in(NOT_CALLED),
                )
                .group_by(*keys, attempts.c[time])
            )
            for row in rows.mappings():
                yield row, time, [(row["ms"], row["attempts"])]

    def _keys(self, names: Iterable[str]) -> list[ColumnElement[object]]:
        columns: dict[str, ColumnElement[object]] = dict(attempts.c)
        columns["day"] = (attempts.c.started_ms // DAY_MS).label("day")
        return [columns[name] for name in names]


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


def _answers(table: Table, *, with_failures: bool) -> list[ColumnElement[bool]]:
    """Return the condition that leaves failures out, if they are to be left out."""
    if with_failures:
        return []
    return [table.c.outcome == "succeeded"]


def _columns(by: Sequence[str]) -> list[str]:
    """Return the columns that the sums of a query are grouped by."""
    grouped = {*by, "outcome", "error"}
    return [name for name in ("day", *DIMENSIONS) if name in grouped]


def _summary(
    summaries: dict[tuple[str, ...], GroupSummary], by: Sequence[str], row: RowMapping
) -> GroupSummary:
    """Return the summary of a row's group; add it if it is missing."""
    group = tuple(_group_value(name, row[name]) for name in by)
    if group not in summaries:
        summaries[group] = GroupSummary(group)
    return summaries[group]


def _group_value(name: str, value: str | int) -> str:
    if name == "day":
        return (date(1970, 1, 1) + timedelta(days=int(value))).isoformat()
    return str(value)

"""Summaries of the ledger: number of attempts, success, latency, tokens and cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

from sqlalchemy import RowMapping, func, select

from breakwater.attempt import NOT_CALLED
from tasks.ledger.attempt_filter import AttemptFilter
from tasks.ledger.database import Database
from tasks.ledger.summary_queries import queries
from tasks.ledger.tables import PICO, SUMS, TIMES, TOKENS, attempts

OUTCOMES = ("succeeded", "failed", "abandoned", "rejected", "cached")
GROUPS = ("provider", "model", "role", "outcome", "day")
PERCENTILES = (50, 95, 99)


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
        for query in queries(where):
            for row in query.sums(connection, by):
                _add_sums(_summary(summaries, by, row), row)
            for row, time, counts in query.times(connection, by, with_failures=with_failures):
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

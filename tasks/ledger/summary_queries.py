"""
The queries of a summary.

Whole days are read from the daily sums, so that five million attempts take milliseconds. The parts
of days at both ends, and everything that is filtered by metadata, are read from the attempts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, case, func, select

from breakwater.attempt import NOT_CALLED
from tasks.ledger.attempt_filter import FOREVER_MS, AttemptFilter
from tasks.ledger.sums import DAY_MS
from tasks.ledger.tables import (
    DIMENSIONS,
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

_MIDDLES = [middle_of(bucket) for bucket in range(bucket_of(FOREVER_MS) + len(SLOTS))]

Times = Iterator[tuple[RowMapping, str, list[tuple[float, int]]]]
"""A group, one of TIMES, and pairs: a time in ms, and the number of attempts that took it."""


class Query(Protocol):
    """Reads the sums and the times of one period."""

    def sums(self, connection: Connection, by: Sequence[str]) -> Iterable[RowMapping]:
        """Read the day, if it is in `by`, some of DIMENSIONS, and the SUMS of each such group."""

    def times(self, connection: Connection, by: Sequence[str], *, with_failures: bool) -> Times:
        """Read how long attempts took; answers only, unless failures are to be included."""


def queries(where: AttemptFilter) -> list[Query]:
    """Return the queries that together read all attempts of a filter, each attempt once."""
    first, end = -(-where.since_ms // DAY_MS), where.until_ms // DAY_MS
    if where.metadata or first >= end:
        return [Attempts(where)]
    parts: list[Query] = [DailySums(where, first, end)]
    if where.since_ms < first * DAY_MS:
        parts.append(Attempts(replace(where, until_ms=first * DAY_MS)))
    if end * DAY_MS < where.until_ms < FOREVER_MS:
        parts.append(Attempts(replace(where, since_ms=end * DAY_MS)))
    return parts


class DailySums:
    """
    Reads whole days from the daily sums.

    Args:
        first: The first day.
        end: The day after the last.
    """

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


class Attempts:
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


def _answers(table: Table, *, with_failures: bool) -> list[ColumnElement[bool]]:
    """Return the condition that leaves failures out, if they are to be left out."""
    if with_failures:
        return []
    return [table.c.outcome == "succeeded"]


def _columns(by: Sequence[str]) -> list[str]:
    """Return the columns that the sums of a query are grouped by."""
    grouped = {*by, "outcome", "error"}
    return [name for name in ("day", *DIMENSIONS) if name in grouped]

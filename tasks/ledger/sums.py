"""
The sums by day, kept with every batch of rows, so that a summary need not look at each.

Most sums that a batch adds to are there already, and one statement adds to all of those. Which are
there is known from earlier batches; for the others it is tried.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Table, Update, bindparam

from breakwater.attempt import NOT_CALLED
from tasks.ledger.tables import DIMENSIONS, SLOTS, SUMS, TIMES, TOKENS, bucket_of, day_times, days

DAY_MS = 24 * 3600 * 1000

Key = tuple[Any, ...]
"""The table's name, and the key in it."""


class ForgottenError(Exception):
    """A sum that was there is not any more: somebody has pruned."""


def add_to_daily_sums(
    connection: Connection,
    more: Iterable[Mapping[str, Any]],
    less: Iterable[Mapping[str, Any]],
    known: Collection[Key],
) -> set[Key]:
    """
    Add rows to the sums of their days, and take others away.

    Args:
        connection: In a transaction, in which the rows themselves are written.
        known: Sums that are there.

    Returns:
        The sums that are there, once the transaction is committed.

    Raises:
        ForgottenError: One of the known is not there; nothing may be committed.
        IntegrityError: Another process has begun one of the others in the meantime; as above.
    """
    sums: dict[Key, Counter[str]] = {}
    for sign, rows in ((1, more), (-1, less)):
        for row in rows:
            key = (row["started_ms"] // DAY_MS, *(row[name] for name in DIMENSIONS))
            count = sums.setdefault(("days", *key), Counter())
            count["attempts"] += sign
            count["failovers"] += sign * row["failover"]
            count["unpriced"] += sign * (row["price_source"] == "unpriced")
            count["cost_pico_usd"] += sign * (row["cost_pico_usd"] or 0)
            for kind in TOKENS:
                count[kind] += sign * (row[kind] or 0)
            for time in TIMES:
                if row[time] is not None and row["outcome"] not in NOT_CALLED:
                    bucket_group, slot = divmod(bucket_of(row[time]), len(SLOTS))
                    there = ("day_times", *key, time, bucket_group)
                    sums.setdefault(there, Counter())[SLOTS[slot]] += sign
    for table, columns in ((days, SUMS), (day_times, SLOTS)):
        _add_to(connection, table, columns, sums, known)
    return set(sums)


def _add_to(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    sums: Mapping[Key, Counter[str]],
    known: Collection[Key],
) -> None:
    names = [column.key for column in table.primary_key]
    there: list[dict[str, Any]] = []
    tried: list[dict[str, Any]] = []
    for (of, *key), count in sums.items():
        if of == table.name:
            values = {f"key_{name}": part for name, part in zip(names, key, strict=True)}
            values |= {f"add_{column}": count[column] for column in columns}
            (there if (of, *key) in known else tried).append(values)
    add = _adding(table, names, columns)
    if there and connection.execute(add, there).rowcount != len(there):
        raise ForgottenError
    new = [each for each in tried if not connection.execute(add, each).rowcount]
    if new:
        begun = [{name.partition("_")[2]: each[name] for name in each} for each in new]
        connection.execute(table.insert(), begun)


def _adding(table: Table, names: Iterable[str], columns: Iterable[str]) -> Update:
    return (
        table.update()
        .where(*(table.c[name] == bindparam(f"key_{name}") for name in names))
        .values({column: table.c[column] + bindparam(f"add_{column}") for column in columns})
    )

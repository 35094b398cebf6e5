"""
Daily sums, written with every batch of rows, so that a summary need not read each row.

Most sums that a batch adds to exist already, and one statement adds to all of those. Which sums
exist is known from earlier batches. Each other sum is updated, and inserted if there was none.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Connection, Table, Update, bindparam

from breakwater.attempt import NOT_CALLED
from tasks.ledger.rows import Row
from tasks.ledger.tables import DIMENSIONS, SLOTS, SUMS, TIMES, TOKENS, bucket_of, day_times, days

DAY_MS = 24 * 3600 * 1000

Key = tuple[str | int, ...]
"""The name of the table, then the primary key in that table."""
Changes = dict[Key, Counter[str]]
"""What to add to the columns of each sum."""


class SumPrunedError(Exception):
    """A sum that existed is gone: the ledger has been pruned."""


def add_to_daily_sums(
    connection: Connection,
    added: Iterable[Row],
    removed: Iterable[Row],
    existing: Collection[Key],
) -> set[Key]:
    """
    Add rows to the sums of their days, and subtract others.

    Args:
        connection: In the transaction that writes the rows themselves.
        existing: Sums that are known to exist.

    Returns:
        The sums that exist once the transaction is committed.

    Raises:
        SumPrunedError: One of `existing` does not exist; the transaction must not be committed.
        IntegrityError: Another process has inserted one of the other sums meanwhile; as above.
    """
    changes: Changes = {}
    for row in added:
        _count(changes, row, 1)
    for row in removed:
        _count(changes, row, -1)
    _write(connection, days, SUMS, changes, existing)
    _write(connection, day_times, SLOTS, changes, existing)
    return set(changes)


def _count(changes: Changes, row: Row, sign: int) -> None:
    key = (row["started_ms"] // DAY_MS, *(row[name] for name in DIMENSIONS))
    count = changes.setdefault(("days", *key), Counter())
    count["attempts"] += sign
    count["failovers"] += sign * row["failover"]
    count["unpriced"] += sign * (row["price_source"] == "unpriced")
    count["cost_pico_usd"] += sign * (row["cost_pico_usd"] or 0)
    for kind in TOKENS:
        count[kind] += sign * (row[kind] or 0)
    if row["outcome"] in NOT_CALLED:
        return
    for time in TIMES:
        if row[time] is not None:
            bucket_group, slot = divmod(bucket_of(row[time]), len(SLOTS))
            group_key = ("day_times", *key, time, bucket_group)
            changes.setdefault(group_key, Counter())[SLOTS[slot]] += sign


def _write(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    changes: Mapping[Key, Counter[str]],
    existing: Collection[Key],
) -> None:
    names = [column.key for column in table.primary_key]
    known: list[Row] = []
    unknown: list[Row] = []
    for key, count in changes.items():
        if key[0] != table.name:
            continue
        values: Row = {f"key_{name}": part for name, part in zip(names, key[1:], strict=True)}
        values |= {f"add_{column}": count[column] for column in columns}
        if key in existing:
            known.append(values)
        else:
            unknown.append(values)
    update = _update(table, names, columns)
    if known and connection.execute(update, known).rowcount != len(known):
        raise SumPrunedError
    missing = [values for values in unknown if not connection.execute(update, values).rowcount]
    if missing:
        inserted = [{name.partition("_")[2]: row[name] for name in row} for row in missing]
        connection.execute(table.insert(), inserted)


def _update(table: Table, names: Iterable[str], columns: Iterable[str]) -> Update:
    return (
        table.update()
        .where(*(table.c[name] == bindparam(f"key_{name}") for name in names))
        .values({column: table.c[column] + bindparam(f"add_{column}") for column in columns})
    )

"""`breakwater why`: show the history of one task."""

import json
from typing import Any, TypeAlias, cast

import redis
from redis.exceptions import RedisError

from breakwater.errors import ConfigError
from breakwater.messaging.keys import LEDGER, result_key
from breakwater.messaging.whereabouts import as_dict
from breakwater.redis.connection import client
from breakwater.redis.encryption import opened
from tasks.ledger.database import Database
from tasks.ledger.export import as_export_row, task_attempts
from tasks.ledger.rows import parse_row
from workers.commands.waiting import read_status
from workers.terminal.console import AsJson, err, fail, out, print_json, usable_redis_url
from workers.terminal.figures import at_utc
from workers.terminal.table import Table

MAX_QUEUED_ROWS = 100_000
"""How many rows in Redis are searched for attempts that are not in the database yet."""
MIN_PAUSE_MS = 500
"""A shorter pause between two attempts is not shown."""

AttemptRow: TypeAlias = dict[str, Any]  # a row of the ledger, as `tasks.ledger.export` returns it


def why(task_id: str, as_json: AsJson = False) -> None:
    """
    Show why a task went where it went.

    Every target that was called or skipped and why, the pauses between them, tokens
    and costs; and where the task is now: whether it runs, or waits and for what.
    Reads the ledger (LEDGER_URL) and Redis.
    """
    attempts = _read_ledger(task_id)
    state: dict[str, object] = {}
    lines: list[str] = []
    try:
        with client(usable_redis_url()) as redis_client:
            attempts = _add_queued(redis_client, task_id, attempts)
            state, lines = _read_state(redis_client, task_id)
    except RedisError as error:
        message = f"Redis does not answer ({type(error).__name__}): this is from the ledger alone"
        err.print(message)
    if not attempts and not state:
        fail(f"task {task_id!r} is unknown: it is not in Redis, nor in the ledger")
    if as_json:
        print_json({"task_id": task_id, **state, "attempts": attempts})
        return
    _print_head(task_id, attempts)
    if attempts:
        out.print(_table(attempts))
    for line in lines:
        out.print(line)


def _read_ledger(task_id: str) -> list[AttemptRow]:
    try:
        with Database(create=False) as database:
            return task_attempts(database, task_id)
    except ConfigError as missing:
        err.print(str(missing), style="yellow")
        return []


def _add_queued(
    redis_client: redis.Redis, task_id: str, attempts: list[AttemptRow]
) -> list[AttemptRow]:
    """Add the rows that wait in Redis for the database."""
    rows = {(attempt["attempt"], attempt["started_ms"]): attempt for attempt in attempts}
    queued = redis_client.xrange(LEDGER, count=MAX_QUEUED_ROWS)
    for _, fields in cast("list[tuple[bytes, dict[bytes, bytes]]]", queued):
        row = parse_row(opened(fields[b"row"].decode()))
        if row and row["task_id"] == task_id:
            key = row["attempt"], row["started_ms"]
            if key not in rows or rows[key]["outcome"] == "abandoned":
                rows[key] = as_export_row(row)
    return sorted(rows.values(), key=lambda row: (row["started_ms"], row["attempt"]))


def _read_state(redis_client: redis.Redis, task_id: str) -> tuple[dict[str, object], list[str]]:
    """Return where the task is now, as JSON fields and as lines; empty if it is unknown."""
    if result := cast("bytes | None", redis_client.get(result_key(task_id))):
        state = json.loads(opened(result.decode()))["status"]
        return {"state": state}, [f"now {state}"]
    status = read_status(task_id, "")
    if status.where.state == "unknown":
        return {}, []
    state = "WAITING"
    if status.where.state == "running":
        state = "STARTED"
    return {"state": state, **as_dict(status.where)}, [f"now {state}", *status.lines()]


def _print_head(task_id: str, attempts: list[AttemptRow]) -> None:
    if not attempts:
        out.print(f"task {task_id}")
        return
    first = attempts[0]
    out.print(f"task {task_id}, role {first['role']}")
    if first["metadata"]:
        out.print(f"metadata {json.dumps(first['metadata'])}", soft_wrap=True)


def _table(attempts: list[AttemptRow]) -> Table:
    table = Table(
        "", "begun (UTC)", "target", "outcome", "ms", "tokens", "USD", "why",
        right=("", "ms", "USD"),
    )  # fmt: skip
    first = attempts[0]
    ended_ms = first["started_ms"]
    table.add("", at_utc(ended_ms - first["queued_ms"]), "", "queued", "", "", "", "")
    for attempt in attempts:
        pause_ms = attempt["started_ms"] - ended_ms
        if pause_ms > MIN_PAUSE_MS:
            table.add("", at_utc(ended_ms), "", "waited", f"{pause_ms}", "", "", "")
        ended_ms = attempt["started_ms"] + attempt["latency_ms"]
        table.add(*_cells(attempt))
    return table


def _cells(attempt: AttemptRow) -> tuple[str, ...]:
    outcome = f"{attempt['outcome']} {attempt['error']} {attempt['status'] or ''}"
    return (
        f"{attempt['attempt']}",
        at_utc(attempt["started_ms"]),
        f"{attempt['provider']} {attempt['model']}",
        " ".join(outcome.split()),
        f"{attempt['latency_ms']}",
        _tokens(attempt),
        _cost(attempt),
        attempt["why"],
    )


def _tokens(attempt: AttemptRow) -> str:
    """Format input and output tokens; `?` for a number that the provider did not report."""
    counts = attempt["input_tokens"], attempt["output_tokens"]
    if counts == (0, 0):
        return ""
    return "+".join("?" if count is None else str(count) for count in counts)


def _cost(attempt: AttemptRow) -> str:
    if attempt["price_source"] == "unpriced" and not attempt["cost_usd"]:
        return "?"
    return attempt["cost_usd"] or ""

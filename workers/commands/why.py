"""`breakwater why`: the story of one task."""

import json
from typing import Any

from redis.exceptions import RedisError

from breakwater.errors import ConfigError
from breakwater.messaging.names import RESULT
from breakwater.messaging.whereabouts import as_dict
from breakwater.redis.connection import client
from breakwater.redis.encryption import opened
from tasks.ledger.database import Database
from tasks.ledger.export import as_export_row, task_attempts
from tasks.ledger.redis_queue import LEDGER
from tasks.ledger.rows import parse_row
from workers.commands.waiting import stand
from workers.terminal.console import AsJson, at_utc, err, fail, out, print_json, usable_redis_url
from workers.terminal.table import Table

MOST_WAITING = 100_000
"""Rows that are looked through if they are not in the database yet."""
WAITED_MS = 500
"""A shorter pause between two attempts is not worth a line."""


def why(task_id: str, as_json: AsJson = False) -> None:
    """
    Tell why a task went where it went.

    Every target that was asked or passed over and why, the waits between, tokens
    and costs; and where it is now: whether it runs, or waits, and for what. Reads
    the ledger (LEDGER_URL) and Redis.
    """
    attempts = _from_ledger(task_id)
    now: dict[str, Any] = {}
    lines: list[str] = []
    try:
        with client(usable_redis_url()) as reached:
            attempts = _with_waiting(reached, task_id, attempts)
            now, lines = _now(reached, task_id)
    except RedisError as error:
        err.print(f"Redis is away ({type(error).__name__}): this is what the ledger has")
    if not attempts and not now:
        fail(f"nothing is known of a task {task_id!r}: it is not in Redis, nor in the ledger")
    if as_json:
        print_json({"task_id": task_id, **now, "attempts": attempts})
        return
    _tell(task_id, attempts, lines)


def _from_ledger(task_id: str) -> list[dict[str, Any]]:
    try:
        with Database(create=False) as database:
            return task_attempts(database, task_id)
    except ConfigError as missing:
        err.print(str(missing), style="yellow")
        return []


def _with_waiting(
    reached: Any, task_id: str, attempts: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Add the rows that are on their way to the database still."""
    best = {(each["attempt"], each["started_ms"]): each for each in attempts}
    for _, fields in reached.xrange(LEDGER, count=MOST_WAITING):
        row = parse_row(opened(fields[b"row"].decode()))
        if row and row["task_id"] == task_id:
            key = row["attempt"], row["started_ms"]
            if key not in best or best[key]["outcome"] == "abandoned":
                best[key] = as_export_row(row)
    return sorted(best.values(), key=lambda each: (each["started_ms"], each["attempt"]))


def _now(reached: Any, task_id: str) -> tuple[dict[str, Any], list[str]]:
    """Say where the task is now, for programs and for people; empty if nobody knows it."""
    if result := reached.get(RESULT + task_id):
        state = json.loads(opened(result.decode()))["status"]
        return {"state": state}, [f"now {state}"]
    seen = stand(task_id, "")
    if seen.where.state == "unknown":
        return {}, []
    state = "STARTED" if seen.where.state == "running" else "WAITING"
    return {"state": state, **as_dict(seen.where)}, [f"now {state}", *seen.lines()]


def _tell(task_id: str, attempts: list[dict[str, Any]], now: list[str]) -> None:
    first = attempts[0] if attempts else {}
    out.print(f"task {task_id}" + (f", role {first['role']}" if first else ""))
    if first.get("metadata"):
        out.print(f"metadata {json.dumps(first['metadata'])}", soft_wrap=True)
    table = Table(
        "", "begun (UTC)", "target", "outcome", "ms", "tokens", "USD", "why",
        right=("", "ms", "USD"),
    )  # fmt: skip
    ended_ms = first.get("started_ms", 0)
    if first:
        table.add("", at_utc(ended_ms - first["queued_ms"]), "", "queued", "", "", "", "")
    for each in attempts:
        waited_ms = each["started_ms"] - ended_ms
        if waited_ms > WAITED_MS:
            table.add("", at_utc(ended_ms), "", "waited", f"{waited_ms}", "", "", "")
        ended_ms = each["started_ms"] + each["latency_ms"]
        table.add(*_cells(each))
    if attempts:
        out.print(table)
    for line in now:
        out.print(line)


def _cells(each: dict[str, Any]) -> tuple[str, ...]:
    status = f" {each['status']}" if each["status"] else ""
    counts = each["input_tokens"], each["output_tokens"]
    return (
        f"{each['attempt']}",
        at_utc(each["started_ms"]),
        f"{each['provider']} {each['model']}",
        f"{each['outcome']} {each['error']}{status}".strip(),
        f"{each['latency_ms']}",
        "+".join("?" if count is None else f"{count}" for count in counts)
        if counts != (0, 0)
        else "",
        each["cost_usd"] or ("?" if each["price_source"] == "unpriced" else ""),
        each["why"],
    )

"""
What a fleet costs its Redis, piece by piece: the inputs of docs/scale.md.

One task's life is taken apart, and each step done `NUMBER` times, one after the other: what the
server's main thread spent on it, and what went over the wire. Redis runs as docs/redis.md has it,
with an append-only file. Then what is kept (bytes), what keepers and idle workers ask, what a look
at all workers takes, and a message that all hear of. `--json FILE` writes the inputs that
`benchmarks.capacity` reckons with.
"""

import argparse
import asyncio
import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from benchmarks.alive import alive
from benchmarks.idle import crowds, real_ones
from benchmarks.meter import QUEUES, Cost, Meter, a_redis, about
from breaker.redis_storage import RedisStorage
from breaker.state import Report, Rules
from breakwater.attempt import Attempt, Usage
from breakwater.celery_app import RESULT_EXPIRES_S
from breakwater.messaging.settlement import Settlement
from tasks.delivery import envelope
from tasks.delivery.delivery_store import DeliveryStore
from tasks.delivery.lease_keeper import ACK_DELAY_S
from tasks.ledger.database import Database
from tasks.ledger.drain import Drainer
from tasks.ledger.redis_queue import send
from tasks.operations.fleet import Fleet
from tests.support.postgres import postgres

NUMBER = 3_000
IN_FLIGHT = 500
ROWS = 10_000
PROMPT, ANSWER = "hi " * 333, "ok " * 333
"""A kilobyte each; longer ones cost memory and bytes, one for one."""
TASK = {
    "task_id": "89178f19-302a-475e-ac5e-7441b3a60b76", "role": "role0", "queued_ms": 4,
    "worker": "host:1", "roles_version": "f2296d656af7", "metadata": {},
}  # fmt: skip
ENQUEUE = """
import sys
from tasks import complete
for _ in range(int(sys.argv[1])):
    print(complete.delay("role0", sys.argv[2]).id)
"""
SCRAPE = """
import sys
from tasks import runtime
from workers.metrics.fleet import FleetMetrics
for name in ("a", "b", "c"):
    runtime.runtime().breakers.get(name).open()
metrics = FleetMetrics()
for _ in range(int(sys.argv[1])):
    list(metrics.collect())
"""
AWAIT = """
import sys
from celery.result import AsyncResult
from tasks import complete
for line in sys.stdin:
    complete.app.AsyncResult(line.strip()).get(timeout=60)
"""


class Life:
    """One task's way through Redis, step by step; many at once."""

    def __init__(self, client: redis.Redis, environ: dict[str, str]) -> None:
        self.client, self.store, self.environ = client, DeliveryStore(client), environ
        self.breakers, self.rules = RedisStorage(client), Rules()
        self.tags: list[tuple[str, str]] = []  # and task ids
        self.fences: dict[str, str] = {}
        self.generation = 0

    def steps(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Name each step in turn, and what does it for all tasks."""
        yield "enqueue", self.enqueue
        yield "take", self.take
        yield "begin", self.begin
        yield "admit", self.admit
        yield "record", self.record
        yield "settle", self.settle
        yield "release", self.release
        yield "drain", self.drain
        yield "await", self.wait

    def enqueue(self) -> None:
        """As producers do."""
        self.ids = self.python(ENQUEUE, str(NUMBER), PROMPT).split()

    def take(self) -> None:
        """One a time, as at low load; at high load a take brings up to eight."""
        while taken := self.store.take(QUEUES, 1, f"{secrets.token_hex(6)}.{len(self.tags)}"):
            for tag, _, raw in taken:
                self.tags.append((tag, envelope.task_id_of(envelope.read(raw))))

    def begin(self) -> None:
        """With the row that is kept should its worker be lost: a new task's first call goes out."""
        row = Attempt("p", "m", "failed", "WorkerLost", number=1).row(TASK)
        for tag, id_ in self.tags:
            self.fences[id_] = self.store.begin(id_, tag, QUEUES[1], call=row, numbered=1).fence

    def admit(self) -> None:
        """Strict: by a round trip."""
        for _, id_ in self.tags:
            self.generation = self.breakers.admit("p", self.rules, id_).view.generation

    def record(self) -> None:
        """A success, as nearly all are."""
        for _, id_ in self.tags:
            self.breakers.record("p", self.rules, Report(id_, self.generation, "success"))

    def settle(self) -> None:
        """With its row for the ledger."""
        result = {"role": "role0", "text": ANSWER, "provider": "p", "model": "m", "attempts": []}
        for tag, id_ in self.tags:
            meta = json.dumps({"status": "SUCCESS", "task_id": id_, "result": result})
            settlement = Settlement(
                id_, meta, RESULT_EXPIRES_S, fence=self.fences[id_], tag=tag,
                numbered=1, rows=["c" + _row(id_)],
            )  # fmt: skip
            self.store.settle(settlement)

    def release(self) -> None:
        """Two at once: so many come within a batch's time at 100 a second."""
        together = max(1, round(100 * ACK_DELAY_S))
        for first in range(0, NUMBER, together):
            self.store.acknowledge([tag for tag, _ in self.tags[first : first + together]])

    def drain(self) -> None:
        """To a database that costs the server nothing."""
        Drainer(self.client, _Nowhere).drain()  # type: ignore[arg-type]

    def wait(self) -> None:
        """Who waits for a result subscribes, looks, and is gone."""
        self.python(AWAIT, stdin="\n".join(self.ids))

    def python(self, code: str, *words: str, stdin: str = "") -> str:
        """Run a producer."""
        return subprocess.run(
            [sys.executable, "-c", code, *words], env=self.environ, input=stdin,
            cwd=self.environ["HOME"], capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip


class _Nowhere:
    def add(self, _: object) -> None:
        """Take the rows."""


def main(words: list[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args([] if words is None else words)
    seen: dict[str, Any] = {"where": _where()}
    for measure in (_steps, _kept, _keeping, _looks, _heard, _database, crowds, real_ones, alive):
        with a_redis() as (client, environ):
            seen |= measure(client, environ)
    for name, value in seen.items():
        print(f"{name:28}{_shown(value)}")
    if options.json:
        options.json.write_text(json.dumps(seen, indent=1, default=asdict) + "\n")


def _where() -> str:
    with a_redis() as (client, _):
        info: Any = client.info("server")
    server = (
        f"Valkey {info['valkey_version']}" if "valkey_version" in info else info["redis_version"]
    )
    today = datetime.now(UTC).date().isoformat()
    return f"{today}, {os.cpu_count()} cores, {server}, Python {platform.python_version()}"


def _shown(value: object) -> str:
    if isinstance(value, Cost):
        return f"{value.us:8.1f} µs{value.bytes:9.0f} bytes{value.commands:7.1f} commands"
    return f"{value:11.1f}" if isinstance(value, float) else f"   {value}"


def _steps(client: redis.Redis, environ: dict[str, str]) -> dict[str, Cost]:
    meter, life = Meter(client), Life(client, environ)
    return {name: meter.of(NUMBER, step) for name, step in life.steps()}


def _kept(client: redis.Redis, environ: dict[str, str]) -> dict[str, float]:
    """Bytes of memory for each of what stays a while, beyond the text that it holds."""
    life, kept = Life(client, environ), {}
    before, text = _used(client), {"waiting": PROMPT, "in_hand": PROMPT, "result": ANSWER}
    for name, step in life.steps():
        step()
        after = {"enqueue": "waiting", "begin": "in_hand", "drain": "result"}.get(name)
        if after:
            kept[f"{after}_bytes"] = (_used(client) - before) / NUMBER - len(text[after])
        if name == "release":
            with_rows = _used(client)
        elif name == "drain":
            kept["row_bytes"] = (with_rows - _used(client)) / NUMBER
            return kept
    return kept


def _used(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory"]) - int(info.get("mem_aof_buffer", 0))


def _keeping(client: redis.Redis, environ: dict[str, str]) -> dict[str, Cost]:
    """What a worker's keeper asks: nothing in hand, and much."""
    life, meter, turns = Life(client, environ), Meter(client), 300
    words = json.dumps(about(0))
    none = meter.of(turns, lambda: [life.store.tend([]) for _ in range(turns)])
    said = meter.of(turns, lambda: [life.store.heartbeat("w", words, QUEUES) for _ in range(turns)])
    life.enqueue()
    life.take()
    life.begin()
    tags = [tag for tag, _ in life.tags[:IN_FLIGHT]]
    many = meter.of(turns, lambda: [life.store.tend(tags) for _ in range(turns)])
    each = Cost((many.us - none.us) / IN_FLIGHT, (many.bytes - none.bytes) / IN_FLIGHT, 0)
    ping = meter.of(turns, lambda: [client.ping() for _ in range(turns)])
    return {"tend": none, "tend_each": each, "present": said, "ping": ping}


def _looks(client: redis.Redis, environ: dict[str, str]) -> dict[str, Cost]:
    """What `breakwater queues`, and every scrape, asks: it grows with the workers."""
    meter, fleet = Meter(client), Fleet(client)

    def look_at(crowd: int) -> Cost:
        for number in range(crowd):
            client.hset("workers", f"{number:012}", json.dumps(about(number)))
        turns = 10_000 // crowd + 3
        return meter.of(turns, lambda: [fleet.snapshot() for _ in range(turns)])

    figures = {f"look_{crowd}": look_at(crowd) for crowd in (100, 1_000, 10_000)}
    turns = 300
    scraped = Life(client, environ)
    return figures | {"scrape": meter.of(turns, lambda: scraped.python(SCRAPE, str(turns)))}


def _database(client: redis.Redis, environ: dict[str, str]) -> dict[str, float]:
    """Rows a second that one worker, whose turn it is, brings to each kind of database."""
    figures = {}
    with ExitStack() as stack:
        for kind, url in (
            ("sqlite", f"sqlite:///{environ['HOME']}/ledger.db"),
            ("postgresql", stack.enter_context(postgres())),
        ):
            database = stack.enter_context(Database(url))
            drain = Drainer(client, lambda: database)  # noqa: B023 - used before the next
            for turn in ("first", "second"):  # the first makes the connection and the day's sums
                send(client, (_row(f"{turn}-{n}") for n in range(ROWS)))
                began = time.perf_counter()
                drain.drain()
                figures[f"{kind}_rows_s"] = ROWS / (time.perf_counter() - began)
    return figures


def _row(task_id: str) -> str:
    usage = Usage(1200, 340)
    attempt = Attempt("p", "m", "succeeded", latency_ms=812, number=1, usage=usage)
    return attempt.row({**TASK, "task_id": task_id})


def _heard(client: redis.Redis, environ: dict[str, str]) -> dict[str, float]:
    """A message that many processes hear of: µs for each that listens."""

    async def measure(crowd: int = 1_000, turns: int = 20) -> float:
        listeners = [redis.asyncio.Redis.from_url(environ["REDIS_URL"]) for _ in range(crowd)]
        ears = [one.pubsub() for one in listeners]
        for ear in ears:
            await ear.subscribe("channel")
        meter = Meter(client)
        cost = meter.of(turns, lambda: [client.publish("channel", "x" * 300) for _ in range(turns)])
        for ear, one in zip(ears, listeners, strict=True):
            await ear.aclose()  # type: ignore[no-untyped-call]
            await one.aclose()
        return cost.us / crowd

    return {"publish_each_us": asyncio.run(measure())}


if __name__ == "__main__":
    main(sys.argv[1:])

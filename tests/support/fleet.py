"""Real workers in processes of their own, and a producer that knows only the contracts."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.spawner import BIN, Child, run, spawn
from tests.support.waiting import wait_for

KEYS = {"claude": "sk-ant-CANARYKEY-0001", "gpt": "sk-CANARYKEY-0002",
        "local": "CANARYKEY-0003", "gemini": "AIzaCANARYKEY0004"}  # fmt: skip
"""Whatever prints one of these has printed a key."""


class Fleet:
    """
    Worker processes over one roles file; all are gone when the context ends.

    The workers run in an empty directory, as an installed package would.
    """

    def __init__(
        self, redis_url: str, roles: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fleet-"))
        self.roles_file = self.folder / "roles.yaml"
        self.roles_file.write_text(roles)
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "REDIS_URL": redis_url,
            "ROLES_FILE": str(self.roles_file),
            **(environ or {}),
        }
        self.workers: list[Child] = []

    def start(
        self, count: int = 1, pool: str = "threads", concurrency: int = 8, *more: str
    ) -> None:
        """Start workers and wait until each consumes."""
        new = [self.start_one(pool, concurrency, *more) for _ in range(count)]
        for number in new:
            wait_for(
                lambda n=number: " ready." in self.log(n) or self.workers[n].poll() is not None,
                explain=lambda n=number: self.log(n),
            )
            assert " ready." in self.log(number), f"it has ended: {self.log(number)}"

    def start_one(self, pool: str, concurrency: int, *more: str) -> int:
        """Start a worker without waiting for it; return its number."""
        number = len(self.workers)
        concurrency = 1 if pool == "solo" else concurrency  # it refuses any other
        command = [
            BIN / "celery", "-A", "workers", "worker", "--pool", pool,
            "--concurrency", str(concurrency), "--loglevel", "INFO",
            "--hostname", f"w{number}@test", *more,
        ]  # fmt: skip
        with self._log_path(number).open("wb") as log:
            self.workers.append(
                spawn(
                    command,
                    cwd=self.folder,
                    env=self.environ,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return number

    def log(self, number: int = 0) -> str:
        """Return all that a worker has printed."""
        return self._log_path(number).read_text(errors="replace")

    def logs(self) -> str:
        """Return all that all workers have printed."""
        return "".join(self.log(n) for n in range(len(self.workers)))

    def run(
        self, code: str, *, roles_known: bool = True, timeout_s: float = 120, fresh: bool = False
    ) -> str:
        """Run a producer's code in another directory; return what it prints."""
        environ = dict(self.environ)
        if not roles_known:
            environ.pop("ROLES_FILE")
        with tempfile.TemporaryDirectory() as elsewhere:
            done = run(
                [sys.executable, "-c", code],
                cwd=elsewhere, env=environ, timeout_s=timeout_s, fresh=fresh,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr + self.logs()[-4000:]
        return done.stdout

    def command(
        self, *words: str, timeout_s: float = 120, typed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the installed package, such as `celery` or `breakwater`."""
        return run(
            [BIN / words[0], *words[1:]],
            cwd=self.folder, env=self.environ, timeout_s=timeout_s, typed=typed,
        )  # fmt: skip

    def stop(self) -> None:
        """Stop every worker, kindly and then not."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.wait(60)
            except subprocess.TimeoutExpired:
                worker.kill_session()

    def _log_path(self, number: int) -> Path:
        return self.folder / f"worker-{number}.log"


@contextmanager
def fleet(redis_url: str, roles: str, environ: Mapping[str, str] | None = None) -> Iterator[Fleet]:
    """Yield a fleet without workers yet; stop them all at the end, and remove their folder."""
    workers = Fleet(redis_url, roles, environ)
    try:
        yield workers
    finally:
        workers.stop()
        shutil.rmtree(workers.folder, ignore_errors=True)

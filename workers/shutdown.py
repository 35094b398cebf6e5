"""
Stop a worker: it takes nothing new, finishes what it can, and returns the rest.

Celery's warm shutdown waits for running tasks however long they take. Its cold shutdown loses them
under gevent and runs them twice under threads. Here SIGTERM gives running tasks `--grace` seconds.
After that, at a second SIGTERM, or at SIGQUIT, the tasks that still run go back to the heads of
their queues in one step, their calls are cut off, and the process ends. A call that is cut off may
be paid for: it is counted when the task calls again.

A worker that is drained takes nothing new either, but has all the time that its tasks need.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import cast

import structlog
from celery import Celery, signals
from celery.platforms import EX_OK
from celery.worker import WorkController, state
from click import Option

from tasks.answering import runtime
from workers.heartbeat import describe_worker

GRACE_VARIABLE = "BREAKWATER_GRACE_S"
DEFAULT_GRACE_S = 25.0
"""Kubernetes sends SIGKILL 30 s after SIGTERM."""
POLL_INTERVAL_S = 0.2
EXIT_TIMEOUT_S = 4.0
"""How long the process has to return everything and to end, whether or not Redis answers."""

_log = structlog.get_logger("breakwater")


def add_grace_option(app: Celery) -> None:
    """Add `--grace` to the options of `celery worker`."""
    app.user_options["worker"].add(
        Option(
            ["--grace"],
            type=float,
            default=DEFAULT_GRACE_S,
            show_default=True,
            envvar=GRACE_VARIABLE,
            help="Seconds that running tasks have at SIGTERM; then they go back to their queues.",
        )
    )


class Shutdown:
    """Stop one worker; the thread is started early, since a signal handler can start none."""

    def __init__(self, worker: WorkController, grace_s: float) -> None:
        self._worker = worker
        self.grace_s = grace_s
        # Only this queue may be used in a signal handler that interrupts itself. With an Event,
        # a second signal waits for a lock that the interrupted handler holds.
        self._requests: SimpleQueue[bool] = SimpleQueue()

    def start(self) -> None:
        """Start the thread that a signal wakes."""
        threading.Thread(target=self._run, name="shutdown", daemon=True).start()

    def begin(self, *, at_once: bool) -> None:
        """Start the grace period; a second call, or `at_once`, ends it."""
        runtime.runtime().keeper.close()
        self._requests.put(at_once)

    def drain(self, who: str) -> None:
        """
        Take nothing more, return what has not begun, and end when the rest has; without a limit.

        Until it ends the worker is not stopping: it answers `inspect` and cancels tasks.
        """
        _log.info("shutdown.draining", who=who)
        keeper = runtime.runtime().keeper
        keeper.close()
        keeper.return_waiting()
        threading.Thread(target=self._end_when_done, name="drain", daemon=True).start()

    def _end_when_done(self) -> None:
        keeper = runtime.runtime().keeper
        while keeper.count:
            time.sleep(POLL_INTERVAL_S)
        state.should_stop = EX_OK
        self._worker.consumer.call_soon(lambda: None)  # the consumer reads the flag when it wakes

    def _run(self) -> None:
        if not self._requests.get():
            with suppress(Empty):
                self._requests.get(timeout=self.grace_s)
        with suppress(RuntimeError):  # no thread can be started: the leases of the tasks expire
            threading.Thread(target=self._hand_back, name="hand back", daemon=True).start()
        time.sleep(EXIT_TIMEOUT_S)
        self._kill_children()
        os._exit(EX_OK)  # a thread that waits for Redis would keep the process alive for ever

    def _hand_back(self) -> None:
        from tasks.providers.http.transport import abort_all  # noqa: PLC0415 - as in runtime.py

        keeper = runtime.runtime().keeper
        running = keeper.count
        keeper.stop()
        abort_all()
        self._kill_children()
        _log.warning("shutdown.handed_back", tasks=running)

    def _kill_children(self) -> None:
        """Kill the children of a prefork pool: the calls run in them."""
        for child in getattr(getattr(self._worker.pool, "_pool", None), "_pool", []):
            if isinstance(getattr(child, "pid", None), int):
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)


def prepare(instance: WorkController, options: Mapping[str, object], **_: object) -> None:
    """Let this worker stop as the module describes; Celery calls it before the pool is made."""
    grace_s = options.get("grace")
    if grace_s is None:  # the worker was not started by its command line
        grace_s = DEFAULT_GRACE_S
    shutdown = Shutdown(instance, cast("float", grace_s))

    def begin(**_: object) -> None:
        shutdown.begin(at_once=False)

    def quit_at_once(*_: object) -> None:
        state.should_stop = EX_OK
        shutdown.begin(at_once=True)

    def start(**_: object) -> None:
        shutdown.start()
        runtime.runtime().keeper.start(
            lambda: describe_worker(instance, shutdown.grace_s), shutdown.drain
        )
        # Celery's own handler waits for the threads, and then runs their tasks twice.
        signal.signal(signal.SIGQUIT, quit_at_once)
        handle_second_sigterm(shutdown)

    signals.worker_ready.connect(start, weak=False)
    signals.worker_shutting_down.connect(begin, weak=False)


def handle_second_sigterm(shutdown: Shutdown) -> None:
    """
    Let Celery handle the first SIGTERM only; a later one ends the grace period.

    Celery holds a lock while it handles a SIGTERM, and a second one would wait for that lock.
    """
    celery_handler = signal.getsignal(signal.SIGTERM)
    has_begun = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal has_begun
        if has_begun:
            shutdown.begin(at_once=False)
            return
        has_begun = True
        celery_handler(number, frame)  # type: ignore[misc,operator]

    signal.signal(signal.SIGTERM, end)

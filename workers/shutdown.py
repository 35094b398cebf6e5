"""
How a worker stops: it takes nothing new, finishes what it can, and hands back the rest.

Celery's warm shutdown waits for running tasks however long they take, its cold one loses them under
gevent and doubles them under threads. Here SIGTERM gives them `--grace` seconds; then, at a second
SIGTERM, or at SIGQUIT, what still runs goes back to the heads of its queues in one step, the calls
are cut off, and the process ends. A call that was cut off may be paid for: it is counted when the
task calls again.

A worker that is drained takes nothing new either, but has all the time that its tasks need.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import structlog
from celery import signals
from celery.platforms import EX_OK
from celery.worker import state
from click import Option

from breakwater.celery_app import app
from tasks.answering import runtime
from workers.heartbeat import describe_worker

GRACE = "BREAKWATER_GRACE_S"
GRACE_S = 25.0
"""Kubernetes sends SIGKILL 30 s after SIGTERM."""
LOOK_EVERY_S = 0.2
LAST_WORDS_S = 4.0
"""How long the process has to give everything back and to end, whether or not Redis answers."""

app.user_options["worker"].add(
    Option(
        ["--grace"],
        type=float,
        default=GRACE_S,
        show_default=True,
        envvar=GRACE,
        help="Seconds that running tasks have at SIGTERM; then they go back to their queues.",
    )
)

_log = structlog.get_logger("breakwater")


class Shutdown:
    """One worker's way out; its thread waits from the start, since a signal can start none."""

    def __init__(self, worker: Any, grace_s: float) -> None:
        self._worker = worker
        self.grace_s = grace_s
        # Of all that wakes a thread, only this may be used in a signal handler that interrupts
        # itself: two signals in a row, and an Event's lock is waited for by who holds it.
        self._asked: SimpleQueue[bool] = SimpleQueue()

    def start(self) -> None:
        """Start the thread that a signal wakes."""
        threading.Thread(target=self._run, name="shutdown", daemon=True).start()

    def begin(self, *, at_once: bool) -> None:
        """Start the clock; at once, or a second time, it has run out."""
        runtime.runtime().keeper.close()
        self._asked.put(at_once)

    def drain(self, who: str) -> None:
        """
        Take nothing more, give back what has not begun, and end when the rest has; no clock.

        Until then it is no stopping worker: it answers `inspect`, and cancels what it is told to.
        """
        _log.info("shutdown.draining", who=who)
        keeper = runtime.runtime().keeper
        keeper.close()
        keeper.drop_waiting()
        threading.Thread(target=self._end_when_done, name="drain", daemon=True).start()

    def _end_when_done(self) -> None:
        keeper = runtime.runtime().keeper
        while keeper.count:
            time.sleep(LOOK_EVERY_S)
        state.should_stop = EX_OK
        self._worker.consumer.call_soon(lambda: None)  # it looks when it wakes

    def _run(self) -> None:
        if not self._asked.get():
            with suppress(Empty):
                self._asked.get(timeout=self.grace_s)
        with suppress(RuntimeError):  # no thread can be started: the leases of the tasks run out
            threading.Thread(target=self._hand_back, name="hand back", daemon=True).start()
        time.sleep(LAST_WORDS_S)
        self._kill_children()
        os._exit(EX_OK)  # a thread that waits for Redis would keep the process for ever

    def _hand_back(self) -> None:
        from tasks.providers.http.transport import abort_all  # noqa: PLC0415 - as in runtime.py

        keeper = runtime.runtime().keeper
        running = keeper.count
        keeper.stop()
        abort_all()
        self._kill_children()
        _log.warning("shutdown.handed_back", tasks=running)

    def _kill_children(self) -> None:
        """End prefork's children: the calls are in there."""
        for child in getattr(getattr(self._worker.pool, "_pool", None), "_pool", []):
            if isinstance(getattr(child, "pid", None), int):
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)


@signals.celeryd_init.connect(weak=False)
def _prepare(instance: Any, options: dict[str, Any], **_: Any) -> None:
    grace_s = options.get("grace")
    shutdown = Shutdown(instance, GRACE_S if grace_s is None else grace_s)

    def begin(**_: Any) -> None:
        shutdown.begin(at_once=False)

    def quit_at_once(*_: Any) -> None:
        state.should_stop = EX_OK
        shutdown.begin(at_once=True)

    def ready(**_: Any) -> None:
        shutdown.start()
        runtime.runtime().keeper.start(
            lambda: describe_worker(instance, shutdown.grace_s), shutdown.drain
        )
        # Celery's own handler waits for the threads, and then doubles what they did.
        signal.signal(signal.SIGQUIT, quit_at_once)
        _end_by_term(shutdown)

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(begin, weak=False)


def _end_by_term(shutdown: Shutdown) -> None:
    """Let Celery handle the first SIGTERM alone: it holds a lock, on which a second one hangs."""
    first, begun = signal.getsignal(signal.SIGTERM), False

    def end(number: int, frame: Any) -> None:
        nonlocal begun
        if begun:
            shutdown.begin(at_once=False)
        else:
            begun = True
            first(number, frame)  # type: ignore[misc,operator]

    signal.signal(signal.SIGTERM, end)

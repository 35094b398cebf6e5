"""
Notify waiting callers of settled tasks: one thread per process serves all of them.

`.get()` blocks a thread per result, which an event loop cannot afford. Redis publishes each settled
task, and this thread subscribes. Every `POLL_S` it also reads the results, because the connection
may have missed a message. The thread ends when no caller waits.
"""

import logging
import os
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from celery.result import AsyncResult
from redis.exceptions import RedisError

from breakwater.celery_app import app

READ_S = 1.0
"""The thread reads the socket for this long, and then checks whether a caller still waits."""
POLL_S = 5.0
AWAY_S = 1.0
"""The pause after Redis did not answer."""

_log = logging.getLogger("breakwater")


class Listener:
    """The subscriber; a process has one."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Reset to a state without callers, and with a free lock."""
        self._lock = threading.Lock()
        self._waiting: dict[int, AsyncResult] = {}
        self._abandoned: list[AsyncResult] = []  # still subscribed, but without a caller
        self._listens = False
        self._was_used = False

    def after_fork(self) -> None:
        """
        Reset in a forked child: it has no listener thread, and no thread that releases the locks.

        Celery resets its own state after a fork by multiprocessing, but not after `os.fork`.
        """
        if self._was_used:
            app._after_fork()
            app.backend.result_consumer._after_fork()
        self.restart()

    def subscribe(self, result: AsyncResult) -> "Future[None]":
        """
        Watch one task until `forget`.

        Returns:
            A future that ends when the task has a result, which `result` then holds.
        """
        settled: Future[None] = Future()

        def notify(_: AsyncResult) -> None:
            with suppress(InvalidStateError):  # the caller no longer waits
                settled.set_result(None)

        result.on_ready.then(notify)
        with self._lock:
            self._waiting[id(result)] = result
            self._was_used = True
            if not self._listens:
                self._listens = True
                threading.Thread(target=self._listen, name="listener", daemon=True).start()
        # Celery raises RuntimeError when its reconnections failed. The thread's next poll finds
        # whatever is missed here.
        with suppress(RedisError, RuntimeError, OSError):
            app.backend.add_pending_result(result)
            self._poll([result])
        return settled

    def forget(self, result: AsyncResult) -> None:
        """Stop watching a task; never waits for Redis, so an event loop may call it."""
        with self._lock:
            if self._waiting.pop(id(result), None) and result._cache is None:
                self._abandoned.append(result)

    def _listen(self) -> None:
        polled_at = time.monotonic()
        while self._has_callers():
            try:
                self._unsubscribe()
                app.backend.result_consumer.drain_events(timeout=READ_S)
                if time.monotonic() - polled_at >= POLL_S:
                    polled_at = time.monotonic()
                    with self._lock:
                        results = list(self._waiting.values())
                    self._poll(results)
            except TimeoutError:
                continue
            except Exception as fault:  # noqa: BLE001 - all callers depend on this thread
                _log.warning("cannot subscribe to results: %s", type(fault).__name__)
                time.sleep(AWAY_S)

    def _has_callers(self) -> bool:
        with self._lock:
            self._listens = bool(self._waiting or self._abandoned)
            return self._listens

    def _unsubscribe(self) -> None:
        with self._lock:
            abandoned, self._abandoned = self._abandoned, []
        for result in abandoned:
            app.backend.remove_pending_result(result)

    def _poll(self, results: list[AsyncResult]) -> None:
        """Read the results of the settled tasks among these, whether or not it was notified."""
        if not results:
            return
        backend = app.backend
        keys = [backend.get_key_for_task(result.id) for result in results]
        for result, meta in zip(results, backend.client.mget(keys), strict=True):
            if meta:
                result._maybe_set_cache(backend.decode_result(meta))


listener = Listener()
os.register_at_fork(after_in_child=listener.after_fork)

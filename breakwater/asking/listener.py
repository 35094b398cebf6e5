"""
Hearing of settled tasks: one thread of the process listens for all who wait, however many.

`.get()` keeps a thread per result, which an event loop does not have. What is heard is what Redis
publishes when a task is settled; every `LOOK_S` the thread looks for what was published while the
connection was down. The thread is there as long as anybody waits.
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

HEARS_S = 1.0
"""How long the thread waits at the socket before it sees whether anybody still waits."""
LOOK_S = 5.0
AWAY_S = 1.0
"""How long Redis is left alone when it has not answered."""

_log = logging.getLogger("breakwater")


class Listener:
    """The one who hears; a process has one."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin with nobody, and with a lock that nobody holds."""
        self._lock = threading.Lock()
        self._waiting: dict[int, AsyncResult] = {}
        self._left: list[AsyncResult] = []  # nobody waits for these, who are still subscribed to
        self._listens = False
        self._has_heard = False

    def after_fork(self) -> None:
        """
        Begin anew in a child: the thread is not there, nor whoever held Celery's locks.

        Celery sees to its own after a fork of multiprocessing's, but not of the system's.
        """
        if self._has_heard:
            app._after_fork()
            app.backend.result_consumer._after_fork()
        self.restart()

    def hear(self, result: AsyncResult) -> "Future[None]":
        """
        Listen for one task, until it is forgotten.

        Returns:
            Done when the task has a result, which `result` then holds; at once if it has one.
        """
        heard: Future[None] = Future()

        def tell(_: AsyncResult) -> None:
            with suppress(InvalidStateError):  # nobody waits any more
                heard.set_result(None)

        result.on_ready.then(tell)
        with self._lock:
            self._waiting[id(result)] = result
            self._has_heard = True
            if not self._listens:
                self._listens = True
                threading.Thread(target=self._listen, name="listener", daemon=True).start()
        # Celery raises RuntimeError when it has tried to reconnect in vain. Whatever is missed
        # here, the thread finds when it looks.
        with suppress(RedisError, RuntimeError, OSError):
            app.backend.add_pending_result(result)
            self._look([result])
        return heard

    def forget(self, result: AsyncResult) -> None:
        """Listen for this one no more. Does not wait for Redis: an event loop may call it."""
        with self._lock:
            if self._waiting.pop(id(result), None) and result._cache is None:
                self._left.append(result)

    def _listen(self) -> None:
        looked = time.monotonic()
        while self._somebody_waits():
            try:
                self._leave()
                app.backend.result_consumer.drain_events(timeout=HEARS_S)
                if time.monotonic() - looked >= LOOK_S:
                    looked = time.monotonic()
                    with self._lock:
                        all_of_them = list(self._waiting.values())
                    self._look(all_of_them)
            except TimeoutError:
                continue
            except Exception as fault:  # noqa: BLE001 - whatever it is, all others wait here, too
                _log.warning("results cannot be heard: %s", type(fault).__name__)
                time.sleep(AWAY_S)

    def _somebody_waits(self) -> bool:
        with self._lock:
            self._listens = bool(self._waiting or self._left)
            return self._listens

    def _leave(self) -> None:
        with self._lock:
            left, self._left = self._left, []
        for result in left:
            app.backend.remove_pending_result(result)

    def _look(self, results: list[AsyncResult]) -> None:
        """Read what is settled among these, whether or not it was heard."""
        backend = app.backend
        keys = [backend.get_key_for_task(result.id) for result in results]
        for result, meta in zip(results, backend.client.mget(keys) if keys else (), strict=True):
            if meta:
                result._maybe_set_cache(backend.decode_result(meta))


listener = Listener()
os.register_at_fork(after_in_child=listener.after_fork)

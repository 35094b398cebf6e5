"""
Celery's Redis backend for results; it writes one result per task.

The task settles itself before Celery's tracer stores anything. So its result and its dead letter
are written in one step, and only the delivery with the newest fence writes. Other states that
Celery stores here, such as a revocation or an expired task, are written only if there is no result.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend
from celery.backends.redis import ResultConsumer as RedisResultConsumer
from kombu.exceptions import OperationalError
from redis.connection import ConnectionPool
from redis.exceptions import RedisError

from breakwater import errors
from breakwater.messaging.chord import Part
from breakwater.messaging.names import WORKFLOW_TASK
from breakwater.messaging.settlement import Settlement
from breakwater.messaging.task_store import TaskStore
from breakwater.redis import encryption
from breakwater.redis.connection import ANSWER_S, CONNECT_S, MAX_CONNECTIONS, address, shown
from breakwater.redis.retry import FOREVER, retry_while_redis_is_down

Untyped = Any
"""A value of Celery, which has no types."""

ERRORS = "tasks.errors"
"""The module that a stored error names; old and new versions resolve it."""
MAX_DOWN_S = 60.0
LOOK_S = 1.0
"""A waiting caller polls for its result at this interval, besides its subscription."""
LOOK_SHARE = 20
"""Polling may use at most 1/20 of the waiting time."""


class ResultConsumer(RedisResultConsumer):  # type: ignore[misc]
    """
    Subscribe to results, and also poll for them.

    Celery subscribes on one connection and reads on another. Redis may execute the read first. A
    result that is published between the read and the subscription reaches neither, and `.get()`
    would wait for ever.
    """

    _local = threading.local()

    def _wait_for_pending(
        self,
        result: Untyped,
        timeout: float | None = None,
        on_interval: Untyped = None,
        **how: Untyped,
    ) -> Untyped:
        due = time.monotonic() + LOOK_S

        def poll() -> None:
            nonlocal due
            if (began := time.monotonic()) >= due:
                with suppress(RedisError):  # the subscriber notices it, and reconnects
                    self.on_wait_for_pending(result)
                took_s = time.monotonic() - began
                due = began + max(LOOK_S, LOOK_SHARE * took_s)  # a group may have many results
            if on_interval:
                on_interval()

        return super()._wait_for_pending(result, timeout=timeout, on_interval=poll, **how)

    def cancel_for(self, task_id: str) -> None:
        """
        Unsubscribe from a result.

        Celery calls this in `AsyncResult.__del__`, even while Python shuts down and its modules are
        gone. So it must neither fail nor connect: a lost connection has no subscriptions.
        """
        if sys.is_finalizing():
            return
        if not getattr(self._pubsub, "connection", None):  # then there is no subscription
            self.subscribed_to.discard(self._get_key_for_task(task_id))
            return
        self._local.unsubscribes = True
        try:
            super().cancel_for(task_id)
        finally:
            self._local.unsubscribes = False

    @contextmanager
    def reconnect_on_error(self) -> Iterator[None]:
        """Reconnect as Celery does, for up to 20 s, but never just to unsubscribe."""
        if not getattr(self._local, "unsubscribes", False):
            with super().reconnect_on_error():
                yield
            return
        with suppress(OSError, RedisError):
            yield


class Backend(RedisBackend):  # type: ignore[misc]
    """Celery's backend; the first result of a task is final."""

    ResultConsumer = ResultConsumer

    def on_task_call(self, producer: Untyped, task_id: str) -> None:
        """
        Do nothing: a caller subscribes to a result when it starts to wait.

        Celery subscribes in `delay()`, and without Redis takes 20 s to fail there. A waiting caller
        subscribes first, and then checks whether the result already exists.
        """

    def meta(self, task_id: str, result: Untyped, state: str, request: Untyped = None) -> str:
        """Return a result in Celery's format; an exception becomes its class and `args`."""
        if state in states.EXCEPTION_STATES:
            result = self.prepare_exception(result, serializer=self.serializer)
        meta = self._get_result_meta(result=result, state=state, traceback=None, request=request)
        encoded: str = self.encode({**meta, "task_id": task_id})
        return encoded

    def prepare_exception(self, exc: Untyped, serializer: str | None = None) -> Untyped:
        """Return an error as its class and `args`; our errors name a module of every version."""
        written = super().prepare_exception(exc, serializer)
        if isinstance(written, dict) and written.get("exc_module") == errors.__name__:
            written["exc_module"] = ERRORS
        return written

    def exception_to_python(self, exc: Untyped) -> Untyped:
        """Undo `prepare_exception`, even if another package is called `tasks`."""
        if isinstance(exc, dict) and exc.get("exc_module") == ERRORS:
            exc = {**exc, "exc_module": errors.__name__}
        return super().exception_to_python(exc)

    def encode(self, data: Untyped) -> str:
        """Return data as JSON, encrypted if there are keys."""
        return encryption.seal(super().encode(data))

    def decode(self, payload: Untyped) -> Untyped:
        """
        Undo `encode`.

        Raises:
            ConfigError: The payload is encrypted, and this process has no key for it.
        """
        text = payload
        if isinstance(payload, bytes):
            text = payload.decode()
        if text:
            text = encryption.opened(text)
        return super().decode(text)

    def _store_result(
        self,
        task_id: str,
        result: Untyped,
        state: str,
        traceback: str | None = None,
        request: Untyped = None,
        **_: Untyped,
    ) -> Untyped:
        if getattr(request, "settled", False) or state not in states.READY_STATES:
            return result
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        encoded = self.encode({**meta, "task_id": task_id})
        retry_while_redis_is_down(lambda: self.settle(task_id, encoded), MAX_DOWN_S)
        return result

    def settle(self, task_id: str, meta: str) -> str:
        """Write a result unless the task has one; see `TaskStore.settle`."""
        return TaskStore(self.client).settle(Settlement(task_id, meta, self.expires))

    def on_chord_part_return(
        self, request: Untyped, state: str, result: Untyped, **how: Untyped
    ) -> None:
        """
        Count a part of a chord; the last part queues the body.

        A worker retries until Redis answers: the part is paid for, and no other process counts it.
        """
        if request.group and request.id:
            within_s = MAX_DOWN_S
            if self.app.current_worker_task:
                within_s = FOREVER
            Part(self, request, state, result, within_s).end()

    def mark_as_revoked(
        self, task_id: str, reason: str = "", request: Untyped = None, **how: Untyped
    ) -> None:
        """Notify the chord, as Celery does, and the workflow of which this task is a stage."""
        super().mark_as_revoked(task_id, reason, request, **how)
        for step in _workflow_steps(request):
            with suppress(OperationalError):  # `Run.resume` continues the run
                self.app.signature(step).apply_async()

    def notify_if_cancelled(self, request: Untyped) -> None:
        """If this task was cancelled, notify the chord or the workflow that waits for it."""
        if not request.chord and not _workflow_steps(request):
            return

        def notify() -> None:
            meta = self.client.get(self.get_key_for_task(request.id))
            if meta and self.decode(meta)["status"] == states.REVOKED:
                self.mark_as_revoked(request.id, "cancelled", request, store_result=False)

        with suppress(RedisError):  # Celery would take an error here for the task's own
            retry_while_redis_is_down(notify, MAX_DOWN_S)

    def _call_task_errbacks(self, request: Untyped, exc: Untyped, traceback: Untyped) -> None:
        """
        Queue the errbacks of a failed task, without a further argument for our own tasks.

        Celery passes the failed task's id as the first argument, which handlers of other code bases
        expect. For `complete` it would be one argument too many.
        """
        for errback in request.errbacks:
            errback["immutable"] = errback.get("immutable") or errback["task"] in self.app.tasks
        super()._call_task_errbacks(request, exc, traceback)

    def _params_from_url(self, url: str, defaults: dict[str, Untyped]) -> dict[str, Untyped]:
        return defaults  # `_get_pool` reads REDIS_URL

    def _get_pool(self, **_: Untyped) -> ConnectionPool:
        return address().pool(
            socket_connect_timeout=CONNECT_S,
            socket_timeout=ANSWER_S,
            max_connections=MAX_CONNECTIONS,
        )

    def as_uri(self, include_password: bool = False) -> str:
        """Return REDIS_URL without its password."""
        return shown()


def _workflow_steps(request: Untyped) -> list[Untyped]:
    """Return the errbacks that advance this task's workflow; empty if it belongs to none."""
    return [
        each for each in getattr(request, "errbacks", None) or [] if each["task"] == WORKFLOW_TASK
    ]

"""
Where results are written: Celery's Redis backend, but once per task.

The task settles itself before Celery's tracer stores anything, so that a result and a dead letter
are one step and nobody without the newest fence writes. What else comes here, a revocation or an
expired task, is written if nothing was.
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

ERRORS = "tasks.errors"
"""The module that a written error names, whatever part of this package has it now."""
MAX_DOWN_S = 60.0
LOOK_S = 1.0
"""How often who waits for a result looks for it, whatever was heard."""
LOOK_SHARE = 20
"""A look takes at most one part in so many of the time."""


class ResultConsumer(RedisResultConsumer):  # type: ignore[misc]
    """
    Hears of results, and looks for those it cannot have heard of.

    It subscribes on one connection and looks on another. Redis may read the look first, and a
    result that is published between the two is there for neither: `.get()` would wait for ever.
    """

    _here = threading.local()

    def _wait_for_pending(
        self, result: Any, timeout: float | None = None, on_interval: Any = None, **how: Any
    ) -> Any:
        due = time.monotonic() + LOOK_S

        def look() -> None:
            nonlocal due
            if (began := time.monotonic()) >= due:
                with suppress(RedisError):  # whoever listens notices, and connects anew
                    self.on_wait_for_pending(result)
                took_s = time.monotonic() - began
                due = began + max(LOOK_S, LOOK_SHARE * took_s)  # a group may have many results
            if on_interval:
                on_interval()

        return super()._wait_for_pending(result, timeout=timeout, on_interval=look, **how)

    def cancel_for(self, task_id: str) -> None:
        """
        Unsubscribe from a result.

        Celery calls this in `AsyncResult.__del__`, also when Python ends and its modules are gone.
        So it must neither fail nor connect: a connection that is lost is subscribed to nothing.
        """
        if sys.is_finalizing():
            return
        if not getattr(self._pubsub, "connection", None):  # then nothing is subscribed to
            self.subscribed_to.discard(self._get_key_for_task(task_id))
            return
        self._here.lets_go = True
        try:
            super().cancel_for(task_id)
        finally:
            self._here.lets_go = False

    @contextmanager
    def reconnect_on_error(self) -> Iterator[None]:
        """Reconnect as Celery does, for up to 20 s, but not in order to unsubscribe."""
        if not getattr(self._here, "lets_go", False):
            with super().reconnect_on_error():
                yield
            return
        with suppress(OSError, RedisError):
            yield


class Backend(RedisBackend):  # type: ignore[misc]
    """The first result is the result."""

    ResultConsumer = ResultConsumer

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """
        Subscribe to a result only when somebody waits for it.

        Celery subscribes in `delay()`, and without Redis takes 20 s to fail there. Whoever waits
        subscribes first and then looks whether the result is there already.
        """

    def meta(self, task_id: str, result: Any, state: str, request: Any = None) -> str:
        """Write a result in Celery's format; an exception is written as its class and `args`."""
        if state in states.EXCEPTION_STATES:
            result = self.prepare_exception(result, serializer=self.serializer)
        meta = self._get_result_meta(result=result, state=state, traceback=None, request=request)
        encoded: str = self.encode({**meta, "task_id": task_id})
        return encoded

    def prepare_exception(self, exc: Any, serializer: str | None = None) -> Any:
        """Write an error as its class and `args`; ours by the module that every version has."""
        written = super().prepare_exception(exc, serializer)
        if isinstance(written, dict) and written.get("exc_module") == errors.__name__:
            written["exc_module"] = ERRORS
        return written

    def exception_to_python(self, exc: Any) -> Any:
        """Undo `prepare_exception`, also where another package is called `tasks`."""
        if isinstance(exc, dict) and exc.get("exc_module") == ERRORS:
            exc = {**exc, "exc_module": errors.__name__}
        return super().exception_to_python(exc)

    def encode(self, data: Any) -> str:
        """Write as JSON; encrypted, if there are keys."""
        return encryption.seal(super().encode(data))

    def decode(self, payload: Any) -> Any:
        """
        Undo `encode`.

        Raises:
            ConfigError: It is encrypted, and no key here fits.
        """
        text = payload.decode() if isinstance(payload, bytes) else payload
        return super().decode(encryption.opened(text) if text else text)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **_: Any,
    ) -> Any:
        if getattr(request, "settled", False) or state not in states.READY_STATES:
            return result
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        encoded = self.encode({**meta, "task_id": task_id})
        retry_while_redis_is_down(lambda: self.settle(task_id, encoded), MAX_DOWN_S)
        return result

    def settle(self, task_id: str, meta: str) -> str:
        """Write a result unless there is one; see `TaskStore.settle`."""
        return TaskStore(self.client).settle(Settlement(task_id, meta, self.expires))

    def on_chord_part_return(self, request: Any, state: str, result: Any, **how: Any) -> None:
        """
        Count a part of a chord; the last one queues the body.

        A worker goes on asking Redis until it knows: the part was paid for, and nobody else will.
        """
        if request.group and request.id:
            within_s = FOREVER if self.app.current_worker_task else MAX_DOWN_S
            Part(self, request, state, result, within_s).end()

    def mark_as_revoked(
        self, task_id: str, reason: str = "", request: Any = None, **how: Any
    ) -> None:
        """Tell the chord, as Celery does, and the workflow of which this task is a stage."""
        super().mark_as_revoked(task_id, reason, request, **how)
        for behind in _steps(request):
            with suppress(OperationalError):  # a run is found again by `Run.resume`
                self.app.signature(behind).apply_async()

    def tell_if_cancelled(self, request: Any) -> None:
        """Let a chord or a workflow end that waits for this task, which was cancelled."""
        if not request.chord and not _steps(request):
            return

        def tell() -> None:
            meta = self.client.get(self.get_key_for_task(request.id))
            if meta and self.decode(meta)["status"] == states.REVOKED:
                self.mark_as_revoked(request.id, "cancelled", request, store_result=False)

        with suppress(RedisError):  # an error here would be taken for the task's own
            retry_while_redis_is_down(tell, MAX_DOWN_S)

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        """
        Queue what is linked to a failure, ours as it stands.

        Celery puts the failed task's id in front, which handlers of other code bases want; between
        a role and its prompt it would be one argument too many.
        """
        for errback in request.errbacks:
            errback["immutable"] = errback.get("immutable") or errback["task"] in self.app.tasks
        super()._call_task_errbacks(request, exc, traceback)

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        return defaults  # the pool is made of REDIS_URL

    def _get_pool(self, **_: Any) -> ConnectionPool:
        return address().pool(
            socket_connect_timeout=CONNECT_S,
            socket_timeout=ANSWER_S,
            max_connections=MAX_CONNECTIONS,
        )

    def as_uri(self, include_password: bool = False) -> str:
        """Return what is shown of REDIS_URL; there is no password in it."""
        return shown()


def _steps(request: Any) -> list[Any]:
    """Return what stands behind a stage of a workflow, should it fail; empty for other tasks."""
    return [
        each for each in getattr(request, "errbacks", None) or [] if each["task"] == WORKFLOW_TASK
    ]

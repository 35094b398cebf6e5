"""
Where results are written: Celery's Redis backend, but once per task.

The task settles itself before Celery's tracer stores anything, so that a result and a dead letter
are one step and nobody without the newest fence writes. What else comes here, a revocation or an
expired task, is written if nothing was.
"""

from typing import Any

from celery import states
from celery.backends.redis import RedisBackend
from redis.connection import ConnectionPool

from tasks import encryption
from tasks.connection import ANSWER_S, CONNECT_S, MAX_CONNECTIONS, address, shown
from tasks.delivery.lease import patiently
from tasks.delivery.store import Store

PATIENCE_S = 60.0


class Backend(RedisBackend):  # type: ignore[misc]
    """The first result is the result."""

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
        patiently(lambda: self.settle(task_id, encoded), PATIENCE_S)
        return result

    def settle(self, task_id: str, meta: str) -> str:
        """Write a result unless there is one; see `Store.settle`."""
        return Store(self.client).settle(task_id, meta, expires_s=self.expires)

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

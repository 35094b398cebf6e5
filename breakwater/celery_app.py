"""
The Celery app: the settings that producer and worker share, and cancellation.

`result.cancel()`, `result.revoke()` and `app.control.revoke(id)` cancel a task wherever it is.
Celery only notifies the workers that run at that moment, and each remembers it until it restarts.
Here the cancellation is the task's result, written immediately unless the task has one. So a
waiting task is never paid for, its caller gets the result, and the worker of a running task ends
its call.
"""

import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from celery import Celery, states
from celery.app.control import Control as CeleryControl
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from breakwater.calls.execution_options import check_follower_ids, check_task_id
from breakwater.errors import QueueUnavailable
from breakwater.messaging.journal import Command, Operations, new_id, whoami
from breakwater.messaging.names import COMMON_QUEUE

Untyped = Any
"""A value of Celery, which has no types."""

__all__ = ["QueueUnavailable", "app"]

RESULT_EXPIRES_S = 24 * 3600
ANSWER_S = 2.0
_PROCESS = new_id()
STATES: Mapping[str, str] = {
    "running": states.STARTED,
    "waiting": "WAITING",
    "unknown": states.PENDING,
}
"""Celery's states of tasks without a result; it has no name for a task that waits."""


class Control(CeleryControl):  # type: ignore[misc]
    """Celery's control; it records revocations in the journal."""

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Untyped = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        command: Command | None = None,
        **options: Untyped,
    ) -> Untyped:
        """
        Cancel tasks that have no result yet.

        Args:
            task_id: One id, or several.
            terminate: Celery's option; not needed, since a running task's slot is freed anyway.
            command: The operator's command; None: this process cancels in its own name, and its
                cancellations within a minute share a journal entry.

        Raises:
            RedisError: Redis is unavailable; nothing was cancelled.
        """
        backend = self.app.backend
        task_ids = [task_id] if isinstance(task_id, str) else list(task_id)
        Operations(backend.client).record("cancel", task_ids, command=command or _this_minutes())
        for each in task_ids:
            meta = backend.meta(each, TaskRevokedError("cancelled"), states.REVOKED)
            backend.settle(each, meta)
        self.broadcast("cancel", arguments={"task_ids": task_ids}, destination=destination)
        return super().revoke(task_ids, destination, terminate, signal, **options)


class Result(AsyncResult):  # type: ignore[misc]
    """Celery's result, with `cancel`, and with states for tasks that run or wait."""

    def cancel(self) -> None:
        """Cancel the task, unless it has a result; see `Control.revoke`."""
        self.revoke()

    @property
    def state(self) -> str:
        """
        The state of the result; without one STARTED (it runs), WAITING, or PENDING (unknown id).

        Without a result, this searches a limited number of messages in Redis. To check whether
        there is a result, use `ready()`.
        """
        settled = self._settled()
        if settled != states.PENDING:
            return settled
        # Imported here, because it imports the names of queues, which use this module's app.
        from breakwater.messaging.whereabouts import find  # noqa: PLC0415

        where = find(self.backend.client, self.id).state
        if where == "settled":  # it ended during the search
            return self._settled()
        return STATES[where]

    status = state

    def ready(self) -> bool:
        """Return whether there is a result or an error."""
        return bool(self._settled() in states.READY_STATES)

    def successful(self) -> bool:
        """Return whether the task was answered."""
        return bool(self._settled() == states.SUCCESS)

    def failed(self) -> bool:
        """Return whether the task failed."""
        return bool(self._settled() == states.FAILURE)

    def _settled(self) -> str:
        state: str = self._get_task_meta()["status"]
        return state


class App(Celery):  # type: ignore[misc]
    """Celery's app with our control, results and messages."""

    control_cls = Control
    amqp_cls = "breakwater.messaging.amqp:Amqp"

    def send_task(self, name: str, *args: Untyped, **options: Untyped) -> Untyped:
        """
        Send a task by its name, as Celery does.

        Raises:
            InvalidOption: The id of the task, or of a task that follows it, is not valid.
        """
        if options.get("task_id") is not None:
            check_task_id(options["task_id"])
        check_follower_ids("complete", options)
        return super().send_task(name, *args, **options)

    @cached_property
    def AsyncResult(self) -> type[Result]:  # noqa: N802 - Celery's name
        """The class of our results."""
        made: type[Result] = self.subclass_with_self(Result, reverse="AsyncResult")
        return made


def _this_minutes() -> Command:
    """Return this process's command of this minute; an application may cancel a thousand tasks."""
    return Command(whoami(), f"{_PROCESS}.{time.time() // 60:.0f}")


app = App(
    "breakwater",
    # Our transport and backend read REDIS_URL, so that Celery has no password that it could show.
    broker="redis://",
    backend="breakwater.messaging.backend:Backend+redis://",
)
app.conf.update(
    broker_transport="breakwater.messaging.kombu_transport:Transport",
    task_default_queue=COMMON_QUEUE,
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    result_expires=RESULT_EXPIRES_S,
    # One connection pool for all threads; without it gevent opens a connection per task.
    result_backend_thread_safe=True,
    # With one retry, `delay()` fails within 5 s if Redis accepts connections and does not answer;
    # by default it waits for ever.
    broker_transport_options={
        "socket_connect_timeout": ANSWER_S,
        "socket_timeout": ANSWER_S,
        # A worker closes a silent connection after 11 s at most, instead of 51.
        "health_check_interval": 5,
    },
    task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1},
    # A message is acknowledged after its result is stored; a worker holds only tasks that it runs.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_redirect_stdouts=False,
    # A reconnection changes neither the running tasks nor how many may run.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_prefetch_count_reduction=False,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
)

"""
The Celery app: what producer and worker must agree on, and cancelling.

`result.cancel()`, `result.revoke()` and `app.control.revoke(id)` reach a task anywhere. Celery
tells the workers of the moment, each of which remembers it until it is restarted. Here the
cancellation is the task's result, written at once unless there is one: a waiting task is never
paid for, its caller is told, and the call of a running one is ended by its worker.
"""

import time
from collections.abc import Iterable
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

__all__ = ["QueueUnavailable", "app"]

RESULT_EXPIRES_S = 24 * 3600
ANSWER_S = 2.0
_PROCESS = new_id()
STATES = {"running": states.STARTED, "waiting": "WAITING", "unknown": states.PENDING}
"""Celery's name for where a task is that has no result; it has none for one that waits."""


class Control(CeleryControl):  # type: ignore[misc]
    """Celery's control, whose revocations are written down."""

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Any = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        command: Command | None = None,
        **options: Any,
    ) -> Any:
        """
        Cancel tasks that have no result yet.

        Args:
            task_id: One id, or several.
            terminate: Celery's; not needed, a running task's slot is freed in any case.
            command: The operator's; None: this process cancels in its own name, and what it cancels
                within a minute shares a journal entry.

        Raises:
            RedisError: Redis is away; nothing was cancelled.
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
    """Celery's result, which can be cancelled by the word for it, and knows what runs and waits."""

    def cancel(self) -> None:
        """Cancel the task, unless it has a result; see `Control.revoke`."""
        self.revoke()

    @property
    def state(self) -> str:
        """
        The state: of its result; else STARTED while it runs, WAITING, or PENDING for an unknown id.

        Without a result Redis is searched for the task, a bounded number of messages; ask `ready()`
        to learn whether there is a result.
        """
        settled = self._settled()
        if settled != states.PENDING:
            return settled
        # Late: it imports the queues' names, which come of this module's app.
        from breakwater.messaging.whereabouts import find  # noqa: PLC0415

        where = find(self.backend.client, self.id).state
        # It may have come to its end meanwhile.
        return self._settled() if where == "settled" else STATES[where]

    status = state

    def ready(self) -> bool:
        """Tell whether there is a result."""
        return bool(self._settled() in states.READY_STATES)

    def successful(self) -> bool:
        """Tell whether the task was answered."""
        return bool(self._settled() == states.SUCCESS)

    def failed(self) -> bool:
        """Tell whether the task failed."""
        return bool(self._settled() == states.FAILURE)

    def _settled(self) -> str:
        state: str = self._get_task_meta()["status"]
        return state


class App(Celery):  # type: ignore[misc]
    """Celery's app with both, and with messages of ours."""

    control_cls = Control
    amqp_cls = "breakwater.messaging.amqp:Amqp"

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        """
        Send a task by its name, as Celery does.

        Raises:
            InvalidOption: Its id, or one of a task that is to follow it, cannot be one.
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
    # Our transport and our backend go by REDIS_URL, so that Celery has no password to tell.
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
    # With one repetition, `delay()` fails within 5 s if Redis takes connections and says nothing;
    # by default it waits for ever.
    broker_transport_options={
        "socket_connect_timeout": ANSWER_S,
        "socket_timeout": ANSWER_S,
        # A worker's connection that has gone silent is given up after 11 s at most, not 51.
        "health_check_interval": 5,
    },
    task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1},
    # A message is acknowledged after its result is stored, and a worker holds only what it runs.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_redirect_stdouts=False,
    # A connection that is lost and found changes nothing for what runs, nor for how much may.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_prefetch_count_reduction=False,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
)

"""
Cancelling: `result.cancel()`, `result.revoke()` and `app.control.revoke(id)` reach a task anywhere.

Celery tells the workers of the moment, each of which remembers it until it is restarted. Here the
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

from tasks.execution_options import check_nested, check_task_id
from tasks.operations import Operations, new_command

_PROCESS = new_command()
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
        **options: Any,
    ) -> Any:
        """
        Cancel tasks that have no result yet.

        Args:
            task_id: One id, or several.
            terminate: Celery's; not needed, a running task's slot is freed in any case.

        Raises:
            RedisError: Redis is away; nothing was cancelled.
        """
        backend = self.app.backend
        task_ids = [task_id] if isinstance(task_id, str) else list(task_id)
        Operations(backend.client).record("cancel", task_ids, command=_this_minutes())
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
        from tasks.whereabouts import find  # noqa: PLC0415

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
    amqp_cls = "tasks.delivery.amqp:Amqp"

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        """
        Send a task by its name, as Celery does.

        Raises:
            InvalidOption: Its id, or one of a task that is to follow it, cannot be one.
        """
        if options.get("task_id") is not None:
            check_task_id(options["task_id"])
        check_nested("complete", options)
        return super().send_task(name, *args, **options)

    @cached_property
    def AsyncResult(self) -> type[Result]:  # noqa: N802 - Celery's name
        """The class of our results."""
        made: type[Result] = self.subclass_with_self(Result, reverse="AsyncResult")
        return made


def _this_minutes() -> str:
    """Name what this process cancels in a minute; an application may cancel a thousand."""
    return f"{_PROCESS}.{time.time() // 60:.0f}"

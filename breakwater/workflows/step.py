"""The Celery task `workflow`, which stands behind each stage of a run."""

from typing import Any

from celery import Task, states
from celery.utils import uuid

from breakwater.celery_app import app
from breakwater.enqueueing.prepared import enqueue_persistently
from breakwater.errors import BreakwaterError
from breakwater.executors import executor_of
from breakwater.messaging import tracing
from breakwater.messaging.names import COMMON_QUEUE, WORKFLOW_TASK


class Step(Task):  # type: ignore[misc]
    """The task class behind `workflow`: its messages may carry an answer, which nobody is shown."""

    throws = (BreakwaterError,)
    max_retries = None

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Queue it for any worker; options are Celery's."""
        options.update(queue=COMMON_QUEUE, argsrepr="(…)", kwargsrepr="{…}")
        options["task_id"] = options.get("task_id") or uuid()
        options.setdefault("shadow", WORKFLOW_TASK)
        headers = dict(options.pop("headers", None) or {})
        with tracing.publishing("", COMMON_QUEUE, options["task_id"], headers):
            return enqueue_persistently(
                lambda: super(Step, self).apply_async(args, kwargs, headers=headers, **options)
            )


@app.task(bind=True, base=Step, name=WORKFLOW_TASK, typing=False, ignore_result=True)
def step(self: Task, answer: Any = None, *, run: str, turn: str = "", again: bool = False) -> None:
    """
    Do what comes next in a run.

    Args:
        answer: The result of the turn's task, if this follows it.
        run: Its id.
        turn: The key of the turn that has come to an end, or is to be looked at.
        again: Enqueue what runs once more: its message may be lost.
    """
    executor_of(WORKFLOW_TASK)(answer, run, turn, again)


def outcome_of(task_id: str) -> tuple[str, Any]:
    """Return the state of a task's result (PENDING if it has none), and what it is."""
    backend = app.backend
    meta = backend.client.get(backend.get_key_for_task(task_id))
    if not meta:
        return states.PENDING, None
    known = backend.meta_from_decoded(backend.decode(meta))
    return known["status"], known["result"]

"""The Celery task `workflow`, which advances a run after each stage."""

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
    """The task class of `workflow`; it hides its arguments, which may contain an answer."""

    throws = (BreakwaterError,)
    max_retries = None

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Queue the task for any worker; the options are Celery's."""
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
    Take the next step of a run.

    Args:
        answer: The result of the stage run's task, if this task follows it.
        run: The id of the run.
        turn: The key of the stage run that has ended or must be checked.
        again: Enqueue the running stage's task again, since its message may be lost.
    """
    executor_of(WORKFLOW_TASK)(answer, run, turn, again)


def outcome_of(task_id: str) -> tuple[str, Any]:
    """Return the state of a task's result (PENDING if it has none), and the result or error."""
    backend = app.backend
    meta = backend.client.get(backend.get_key_for_task(task_id))
    if not meta:
        return states.PENDING, None
    result = backend.meta_from_decoded(backend.decode(meta))
    return result["status"], result["result"]

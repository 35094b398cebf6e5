"""The body of `complete`, as a worker runs it."""

from traceback import clear_frames
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from celery import Task, states
from celery.exceptions import Ignore

from breakwater import executors
from breakwater.completion import Complete
from breakwater.result import Result
from tasks.answering import runtime
from tasks.answering.execution import TaskExecution
from tasks.delivery.lease import AlreadySettled
from tasks.telemetry import tracing

Complete.Request = "tasks.delivery.request:QuietRequest"


def execute(task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """Answer a prompt; arguments and result are those of `complete`."""
    name_linked(task.request)
    with (
        tracing.current().processing(task.request),
        TaskExecution.of(task, runtime.runtime()) as execution,
    ):
        try:
            return execution.answer(args, kwargs)
        except AlreadySettled:
            return stored(task)
        except Ignore:
            task.backend.notify_if_cancelled(task.request)
            raise
        except Exception as error:
            forget_locals(error)
            raise


executors.install("complete", execute)


def forget_locals(error: BaseException) -> None:
    """
    Empty the finished frames behind an error; files and lines stay.

    Their variables hold prompts, and an error tracker would send them.
    """
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            clear_frames(each.__traceback__)
            todo += [each.__cause__, each.__context__]


def stored(task: Task) -> Result:
    """Return the result that a task has already, or raise its error."""
    meta = task.backend.get_task_meta(task.request.id)
    task.request.settled = True
    if meta["status"] == states.REVOKED:
        task.backend.notify_if_cancelled(task.request)
        raise Ignore("the task was cancelled")
    if isinstance(meta["result"], Exception):
        raise meta["result"]
    result: Result = meta["result"]
    return result


def name_linked(request: Any) -> None:
    """
    Give the tasks that are linked to this one ids that are derived from its own.

    A task that is delivered again after its settlement, or was enqueued twice, queues its linked
    tasks again. Under the same id each of them is paid for once.
    """
    for how in ("callbacks", "errbacks"):
        for number, linked in enumerate(getattr(request, how, None) or []):
            if not linked.get("subtask_type"):
                own = str(uuid5(NAMESPACE_OID, f"{request.id} {how} {number}"))
                linked["options"].setdefault("task_id", own)

"""The task `complete(role, prompt, **options)` that producers enqueue and workers run."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, Unpack, cast

from celery import Task, group
from celery.result import AsyncResult
from celery.utils import uuid
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.calls import execution_options
from breakwater.calls.options import to_wire
from breakwater.celery_app import app
from breakwater.enqueueing.bulk import BulkEnqueue
from breakwater.enqueueing.interface import ApplyOptions, Call, CompletionTask, DeliveryOptions
from breakwater.enqueueing.prepared import (
    REDACTED_REPRS,
    PreparedCall,
    enqueue_persistently,
    message_headers,
    queue_selector,
)
from breakwater.errors import BreakwaterError, QueueUnavailable, UnknownTask
from breakwater.executors import executor_of
from breakwater.messaging.names import shadow_name
from breakwater.messaging.tracing import publishing
from breakwater.redis.connection import cause_of, unavailable
from breakwater.redis.foreign_keys import named
from breakwater.result import Result


class Complete(Task):  # type: ignore[misc]
    """The task class of `complete`: it checks calls, chooses queues, and hides prompts."""

    # Events and logs contain this many characters of the result: its task id, none of the answer.
    resultrepr_maxsize = 64
    # The worker logs these errors in one line of its own, without a traceback.
    throws = (BreakwaterError,)
    max_retries = None

    def apply_async(
        self,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        **options: Unpack[ApplyOptions],
    ) -> AsyncResult:
        """
        Check the call and put it on its role's queue; the options are Celery's.

        Raises:
            BadTask: The role, the prompt or an option is at fault, or the `task_id` was enqueued
                before with another call; nothing was queued.
            QueueUnavailable: Redis refuses, or does not answer within 5 s.
        """
        execution_options.check(options, "apply_async")
        call = PreparedCall.of(args or (), kwargs or {}, queue_selector(options.get("queue")))
        chosen_id = options.get("task_id")
        task_id = chosen_id or uuid()
        # A worker enqueues the parts of a canvas under ids that were chosen with the canvas.
        digests = ""
        if chosen_id and app.current_worker_task is None:
            digests = call.digests()
        headers = message_headers(options.pop("headers", None), digests)
        options.setdefault("shadow", shadow_name(call.role))
        options["queue"] = call.queue
        options["task_id"] = task_id
        try:
            with publishing(call.role, call.queue, task_id, headers):
                return enqueue_persistently(
                    lambda: super(Complete, self).apply_async(
                        (call.role, call.prompt),
                        call.options,
                        headers=headers,
                        **REDACTED_REPRS,
                        **options,
                    )
                )
        except (OperationalError, RedisError) as error:
            raise _not_queued(error, call.queue, task_id) from error

    def delay_many(
        self,
        calls: Iterable[Call],
        *,
        task_ids: Iterable[str] | None = None,
        **options: Unpack[DeliveryOptions],
    ) -> list[AsyncResult]:
        """
        Check many calls, and put each on its role's queue in few round trips.

        Args:
            calls: Each is `(role, prompt)` or `(role, prompt, {option: value, …})`.
            task_ids: One id for each call; None: new ids.
            options: Celery's, for all calls: queue, priority, countdown, eta, expires, headers.

        Returns:
            A result for each call, in their order.

        Raises:
            BadCalls: Calls are at fault; the error lists each with its index. Nothing was queued.
            InvalidOption: The ids or the options do not fit; nothing was queued.
            QueueUnavailable: Redis did not accept all calls. `details` has all `task_ids`: the
                first `queued` tasks are queued, the next `unsure` ones may be. Enqueue all of them
                again under the same ids; no task is paid for twice.
        """
        return BulkEnqueue(self, calls, task_ids, options).put()

    def signature(
        self,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        *more: object,
        **celery: object,
    ) -> execution_options.CheckedSignature:
        """
        Make a signature for a canvas; Celery queues later stages without `apply_async`.

        Raises:
            InvalidOption: An option does not exist, or is in the wrong place.
        """
        options = to_wire(kwargs or {})
        execution_options.check_keyword_names(options)
        direct = {name: value for name, value in celery.items() if name != "options"}
        nested = celery.get("options")
        if isinstance(nested, Mapping):
            direct.update(nested)
        execution_options.check(direct, "set")
        made = super().signature(args, options, *more, **celery)
        return execution_options.CheckedSignature.of(made)

    subtask = signature

    def starmap(self, it: Iterable[tuple[object, ...]]) -> group:
        """Make a group of many calls, each a tuple of arguments; each call has its own result."""
        return group([self.s(*each) for each in it], app=self.app)

    def map(self, it: Iterable[object]) -> NoReturn:
        """Raise UnknownTask: `map` passes one argument, and a role and a prompt are two."""
        raise UnknownTask("complete has no map; use complete.starmap([(role, prompt), …])")

    def chunks(self, it: Iterable[object], n: int) -> NoReturn:
        """Raise UnknownTask: the calls of a chunk would get their results only at its end."""
        raise UnknownTask("complete has no chunks; use complete.starmap([(role, prompt), …])")


def _not_queued(error: Exception, queue: str, task_id: str) -> QueueUnavailable:
    return unavailable(
        "Redis did not take the task",
        error,
        f"then enqueue it again, best under the same task_id {task_id!r}",
        {"task_id": task_id},
        named(cause_of(error), [queue]),
    )


@app.task(bind=True, base=Complete, name="complete", typing=False)
def _complete(self: Task, *args: object, **kwargs: object) -> Result:
    """
    Answer a prompt by the first provider of the role's chain that can.

    Args:
        role: A role of the roles file.
        prompt: A string, or a list of messages `{"role": …, "content": …}`; docs/completions.md.
        system: Replaces the role's system prompt.
        params: Parameters that override the role's, such as `{"temperature": 0}`.
        metadata: A JSON object that is stored with the task.
        deadline_s: Seconds from enqueueing until the task gives up; default: the role's.
        schema: The JSON Schema, or the pydantic model, that the answer must satisfy.
        tools: Functions that the model may ask the caller to run, `{"name", "description",
            "parameters"}`; `tool_choice`: `auto`, `none`, `required`, or the name of one.
        stream: Whether to publish the answer while the model writes it.

    Returns:
        The result object: text, provider, usage, attempts and so on.

    Raises:
        BadTask: The role does not exist, or the prompt or an option does not fit.
        ProviderError: Every target refused the prompt; the class says how.
        ChainExhausted: Every target failed, for different reasons.
        DeadlineExceeded: No target answered before the deadline.
        WorkerLost: Several workers died while they ran the task.
    """
    return cast("Result", executor_of("complete")(self, args, kwargs))


complete = cast("CompletionTask", _complete)

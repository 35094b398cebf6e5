"""The task `complete(role, prompt, **options)`, as producers and workers share it."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from celery import Task, group
from celery.result import AsyncResult
from celery.utils import uuid
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.calls import execution_options
from breakwater.calls.options import to_wire
from breakwater.celery_app import app
from breakwater.enqueueing.bulk import BulkEnqueue
from breakwater.enqueueing.interface import CompletionTask
from breakwater.enqueueing.prepared import (
    REDACTED_REPRS,
    PreparedCall,
    enqueue_persistently,
    message_headers,
    queue_selector,
)
from breakwater.errors import BreakwaterError, UnknownTask
from breakwater.executors import executor_of
from breakwater.messaging.names import shadow_name
from breakwater.messaging.tracing import publishing
from breakwater.redis.connection import cause_of, unavailable
from breakwater.redis.foreign_keys import named
from breakwater.result import Result


class Complete(Task):  # type: ignore[misc]
    """The task class behind `complete`: it checks, routes to a queue, and shows no prompt."""

    # Events and logs carry this much of the result: its task id, none of the answer.
    resultrepr_maxsize = 64
    # The worker's log has our own line for these, without a traceback.
    throws = (BreakwaterError,)
    max_retries = None

    def apply_async(
        self,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult:
        """
        Check the call and put it on its role's queue; options are Celery's.

        Raises:
            BadTask: The role, the prompt or an option is at fault, or the `task_id` was enqueued
                before with another prompt; nothing was queued.
            QueueUnavailable: Redis refuses, or does not answer within 5 s.
        """
        execution_options.check(options, "apply_async")
        call = PreparedCall.of(args or (), kwargs or {}, queue_selector(options.get("queue")))
        chosen_id = options.get("task_id")
        # A worker enqueues under the ids that a canvas got when it was made.
        digests = call.digests() if chosen_id and app.current_worker_task is None else ""
        headers = message_headers(options.pop("headers", None), digests)
        options.setdefault("shadow", shadow_name(call.role))
        options["queue"] = call.queue
        options["task_id"] = chosen_id or uuid()
        try:
            with publishing(call.role, call.queue, options["task_id"], headers):
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
            raise unavailable(
                "Redis did not take the task",
                error,
                f"then enqueue it again, best under the same task_id {options['task_id']!r}",
                {"task_id": options["task_id"]},
                named(cause_of(error), [call.queue]),
            ) from error

    def delay_many(
        self, calls: Iterable[Any], *, task_ids: Iterable[str] | None = None, **options: Any
    ) -> list[AsyncResult]:
        """
        Check many calls, and put each on its role's queue, in few round trips.

        Args:
            calls: `(role, prompt)` or `(role, prompt, {option: value, …})`, each.
            task_ids: One for each call; new ones if absent.
            options: Celery's, for all: queue, priority, countdown, eta, expires, headers.

        Returns:
            A result for each call, in their order.

        Raises:
            BadCalls: Calls are at fault; the error lists each with its index. Nothing was queued.
            InvalidOption: The ids or the options for all do not fit; nothing was queued.
            QueueUnavailable: Redis did not take all of them. `details` has all `task_ids`; the
                first `queued` of them are queued, the next `unsure` may be. Enqueue all of them
                again under the same ids: none is paid for twice.
        """
        return BulkEnqueue(self, calls, task_ids, options).put()

    def signature(self, args: Any = None, kwargs: Any = None, *more: Any, **celery: Any) -> Any:
        """
        Make a signature, for a canvas, whose later stages are queued without `apply_async`.

        Raises:
            InvalidOption: An option does not exist, or is in the wrong place.
        """
        kwargs = to_wire(kwargs or {})
        execution_options.check_keyword_names(kwargs)
        direct = {name: value for name, value in celery.items() if name != "options"}
        execution_options.check({**direct, **(celery.get("options") or {})}, "set")
        made = super().signature(args, kwargs, *more, **celery)
        return execution_options.CheckedSignature.of(made)

    subtask = signature

    def starmap(self, it: Iterable[Any]) -> group:
        """Make a group of many calls, a tuple of arguments each; each is settled by itself."""
        return group([self.s(*each) for each in it], app=self.app)

    def map(self, it: Iterable[Any]) -> Any:
        """Refuse: a role and a prompt are two arguments."""
        raise UnknownTask("complete has no map; use complete.starmap([(role, prompt), …])")

    def chunks(self, it: Iterable[Any], n: int) -> Any:
        """Refuse: the calls of a chunk would be settled only at its end."""
        raise UnknownTask("complete has no chunks; use complete.starmap([(role, prompt), …])")


@app.task(bind=True, base=Complete, name="complete", typing=False)
def _complete(self: Task, *args: Any, **kwargs: Any) -> Result:
    """
    Answer a prompt through the first provider of the role's chain that can.

    Args:
        role: A role of the roles file.
        prompt: A string, or a list of messages `{"role": …, "content": …}`; docs/completions.md.
        system: Replaces the role's system prompt.
        params: Parameters over the role's, such as `{"temperature": 0}`.
        metadata: A JSON object that is stored with the task.
        deadline_s: Seconds from enqueueing until the task gives up; default: the role's.
        schema: The JSON Schema, or the pydantic model, that the answer must satisfy.
        tools: Functions that the model may ask to have called, `{"name", "description",
            "parameters"}`; `tool_choice`: `auto`, `none`, `required`, or the name of one.
        stream: Whether to publish the answer while it comes.

    Returns:
        The result object: text, provider, usage, attempts and so on.

    Raises:
        BadTask: The role does not exist, or the prompt or an option does not fit.
        ProviderError: Every target refused the prompt; the class says how.
        ChainExhausted: Every target failed, for different reasons.
        DeadlineExceeded: No target answered in time.
        WorkerLost: Several workers died while they ran it.
    """
    result: Result = executor_of("complete")(self, args, kwargs)
    return result


complete = cast("CompletionTask", _complete)

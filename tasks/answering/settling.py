"""The end of a task: its result, or its error and a dead letter."""

import json
from collections.abc import Mapping
from typing import Any

import structlog
from celery import Task, states
from celery.exceptions import Ignore

from breakwater.attempt import attempts_as_json
from breakwater.calls.call import MAX_BYTES, CompletionCall, bind_arguments
from breakwater.calls.value_types import NAME
from breakwater.errors import BadTask, BreakwaterError, ResultTooLarge
from breakwater.messaging.settlement import Settlement
from breakwater.redis.encryption import seal
from breakwater.result import Result, write_result
from tasks.answering import response_cache
from tasks.answering.task_state import TaskState
from tasks.answering.walk import ChainAnswer
from tasks.telemetry import observers

SHOWN_OPTIONS = ("params", "metadata", "deadline_s")
"""Options that a dead letter shows; all others may hold parts of the prompt."""

log = structlog.get_logger("breakwater")


class Settler:
    """
    Settles one task.

    Args:
        task: Celery's.
        state: What is known of it.
    """

    def __init__(self, task: Task, state: TaskState) -> None:
        self._task = task
        self._state = state

    def succeed(self, call: CompletionCall, routed: ChainAnswer) -> Result:
        """
        Settle the task with an answer.

        Raises:
            ResultTooLarge: The task was settled with this error instead.
            Ignore: Another delivery has begun, and its result counts.
        """
        state, task_id, lease = self._state, self._state.request.id, self._state.lease
        result = write_result(
            routed.answer(task_id),
            role=call.role,
            attempts=[*state.attempts, *routed.attempts],
            queued_ms=state.queued_ms,
            request_id=routed.completion.request_id,
            duplicates=lease.duplicates if lease else 0,
        )
        if lease is None:
            return result
        meta = self._task.backend.meta(task_id, result, states.SUCCESS, state.request)
        if len(meta) > MAX_BYTES:
            error = _too_large(len(meta), result)
            self.fail(error)
            raise error
        cached = response_cache.CacheEntry()
        if lease.keep_s:
            cached = response_cache.kept(task_id, routed, lease.keep_s)
        opens = ""
        if routed.admits_all:
            opens = state.queue(call.role)
        self._settle(meta, opens=opens, keep_s=cached.keep_s, answer=cached.answer)
        observers.settled(call.role, "succeeded", state.age_s)
        return result

    def fail(self, error: Exception) -> None:
        """
        Settle the task with its error, and keep a dead letter.

        Raises:
            Ignore: Another delivery has begun, and its result counts.
        """
        state = self._state
        state.ensure_begun()
        attempts = getattr(error, "attempts", None) or attempts_as_json(state.attempts)
        role, options = dead_letter_fields(state.request)
        dead = {
            "role": role,
            "error": type(error).__name__,
            "message": str(error) if isinstance(error, BreakwaterError) else "a fault of ours",
            "attempts": json.dumps(attempts),
            "options": seal(json.dumps(options)),
        }
        log.warning("dead_letter", task_id=state.request.id, error=dead["error"])
        if state.lease is None:
            return
        meta = self._task.backend.meta(state.request.id, error, states.FAILURE, state.request)
        self._settle(meta, dead=dead)
        observers.settled(role, "failed", state.age_s)

    def _settle(
        self,
        meta: str,
        *,
        opens: str = "",
        dead: Mapping[str, str] | None = None,
        keep_s: int = 0,
        answer: str = "",
    ) -> None:
        state = self._state
        if state.lease is None:
            raise RuntimeError("a task without a lease has nothing to settle")
        if state.stream:
            state.stream.finish()
        settlement = Settlement(
            state.request.id, meta, self._task.backend.expires,
            opens=opens, dead=dead or {}, keep_s=keep_s, answer=answer,
        )  # fmt: skip
        if not state.lease.settle(settlement):
            raise Ignore("another delivery of this task has begun")
        state.request.settled = True  # Celery's tracer has nothing left to store


def dead_letter_fields(request: Any) -> tuple[str, dict[str, Any]]:
    """Return a task's role and its options, without the prompt and what belongs to it."""
    try:
        role, _, options = bind_arguments(request.args, request.kwargs)
    except BadTask:
        return "", {}
    if not isinstance(role, str) or not NAME.fullmatch(role):
        role = ""
    return role, {name: options[name] for name in SHOWN_OPTIONS if name in options}


def _too_large(size: int, result: Result) -> ResultTooLarge:
    return ResultTooLarge(
        f"the result has {size} bytes as JSON, and the limit is {MAX_BYTES}, as for a prompt; a "
        f"smaller max_output_tokens gives a shorter answer",
        {"attempts": result["attempts"]},
    )

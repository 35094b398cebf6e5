"""One task in a worker's hands: answered and settled, failed and settled, or put back to wait."""

import json
import os
import random
import socket
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import structlog
from celery import Task, states
from celery.exceptions import Ignore, Reject

from breakwater import roles
from breakwater.attempt import attempts_as_json
from breakwater.calls.call import MAX_BYTES, CompletionCall, bind_arguments
from breakwater.calls.value_types import NAME
from breakwater.config.last_good import REMOVAL_GRACE_S
from breakwater.errors import (
    BadTask,
    BreakwaterError,
    Cancelled,
    ChainExhausted,
    DeadlineExceeded,
    HostFault,
    ResultTooLarge,
    WorkerLost,
)
from breakwater.messaging.names import COMMON_QUEUE, queue_of, role_in
from breakwater.messaging.settlement import Settlement
from breakwater.messaging.times import Clock, enqueued_ms
from breakwater.redis.encryption import seal
from breakwater.result import Result, write_result
from tasks.answering import response_cache as responses
from tasks.answering import runtime
from tasks.answering.walk import ChainAnswer, NothingAvailable
from tasks.config import Role
from tasks.delivery.lease import AlreadySettled, DeliverySuperseded, HasHistory, Lease
from tasks.delivery.waits import Delay, Park
from tasks.delivery.worker_transport import TAKEN_FROM
from tasks.ledger import redis_queue, row_spool
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.streaming.writer import Writer
from tasks.telemetry import observers
from tasks.telemetry.sinks import TaskFields

log = structlog.get_logger("breakwater")

NOT_CACHED = responses.CacheEntry()
MAX_WAIT_S = 60.0
"""A waiting task looks again at least this often."""
MAX_REPEATS = 3
"""How often a task is repeated after a call that was cut off, or a bug of ours, before it fails."""
REMOVED_MS = 5_000
"""A task of a role that was removed is out of sight this long: until its queue is left alone."""


class TaskExecution:
    """
    A task, and its lease.

    Args:
        task: Celery's, with its request.
        lease: None where nothing can be settled or put back: called directly, or eagerly.
        tag: The delivery's.
    """

    def __init__(self, task: Task, lease: Lease | None, tag: str) -> None:
        self._task = task
        self._lease = lease
        self._tag = tag
        self._stream: Writer | None = None
        self._now = runtime.runtime()
        properties = getattr(task.request, "properties", None)
        self._clock = Clock.of(properties if lease else None)
        self._started_ms = self._clock.now_ms()
        self._load_history()

    def _load_history(self) -> None:
        """Go by what the lease knows of the task."""
        lease = self._lease
        self._attempts = list(lease.attempts) if lease else []
        carried_ms = enqueued_ms(self._task.request.headers)
        self._enqueued_ms = (lease and lease.enqueued_ms) or carried_ms or self._started_ms
        self._queued_ms = max(0, self._started_ms - self._enqueued_ms)

    @classmethod
    def of(cls, task: Task) -> "TaskExecution":
        """Take a task in hand; it has not begun yet."""
        tag = (getattr(task.request, "properties", None) or {}).get("delivery_tag")
        if not tag or task.request.is_eager:
            return cls(task, None, "")
        role = role_in(task.request.args, task.request.kwargs)
        queue = queue_of(role) if isinstance(role, str) and NAME.fullmatch(role) else ""
        now = runtime.runtime()
        lease = Lease(now.store, task.request.id, tag, queue, now.keeper, keep_rows=row_spool.keep)
        return cls(task, lease, tag)

    def __enter__(self) -> "TaskExecution":
        """Let the keeper end this thread's call, should the task be settled without it."""
        if self._lease:
            self._now.keeper.task_started(self._tag, self._lease)
        return self

    def __exit__(self, *_: object) -> None:
        """From here on the thread is somebody else's."""
        if self._lease:
            self._now.keeper.task_finished(self._tag)

    def answer(self, args: Any, kwargs: Any) -> Result:
        """
        Walk the chain and settle the result.

        Raises:
            AlreadySettled: There is a result already.
            Ignore: The task waits in Redis, was settled without us, or is another delivery's.
            Reject: Redis is away; the message goes back.
            BreakwaterError: It failed for good, and that is its result.
        """
        try:
            return self._answer(args, kwargs)
        except HasHistory:
            self._load_history()
        return self._answer(args, kwargs)

    def _answer(self, args: Any, kwargs: Any) -> Result:
        call, role = self._asked(args, kwargs)
        if role is None:
            self._requeue(call, Delay(REMOVED_MS))
            raise Ignore("its role was removed; it waits in the role's queue")
        try:
            routed = self._shared(call, role) or self._route(call, role)
        except NothingAvailable as nothing:
            self._attempts += nothing.attempts
            self._wait(call, role, nothing)
        except (HasHistory, AlreadySettled, Ignore, Reject):
            raise
        except DeliverySuperseded as over:
            if self._lease and not self._lease.has_begun:
                self._lease.begin()
                raise HasHistory from None
            raise Ignore(str(over)) from None
        except Exception as fault:
            self._ensure_begun()
            if self._now.keeper.stopped:
                raise Ignore("the worker stops; its tasks have gone back") from None
            if not _nobodys_fault(fault) or not self._repeat(call, role, fault):
                self._fail(fault)
                raise
        else:
            return self._succeed(call, routed)
        raise Ignore("the task waits in Redis")

    def _asked(self, args: Any, kwargs: Any) -> tuple[CompletionCall, Role | None]:
        """Read what is asked, and of which role; None: it was removed."""
        try:
            self._accuse()
            if self._lease and self._lease.is_given_up:
                raise WorkerLost(
                    f"{self._lease.lost} workers were lost while they ran this task, "
                    f"{self._lease.lost_alone} of them with nothing else in hand"
                )
            call = CompletionCall.of(*bind_arguments(args, kwargs))
            return call, None if self._was_removed(call.role) else self._role(call)
        except Exception as error:
            self._fail(error)
            raise

    def _accuse(self) -> None:
        """
        Count a failure of the provider whose call a worker was lost with, which ran nothing else.

        The first such loss of a task is nobody's fault: an operator or a full host kills, too.
        """
        name = self._lease.accused if self._lease else ""
        if name not in self._now.settings.providers:
            return
        self._now.health.report_lost_worker(name)

    def _ensure_begun(self) -> None:
        if self._lease:
            self._lease.ensure_begun()

    def _role(self, call: CompletionCall) -> Role:
        role = self._now.settings.role(call.role)
        self._now.settings.check_params(role, call.params)
        return role

    def _open_stream(self, role: Role) -> None:
        """
        Begin to tell what the task says, and take back what a lost worker left half said.

        Raises:
            WorkerLost: It left something, and the role does not begin anew.
        """
        if not self._lease:
            return
        self._lease.ensure_begun()
        lease, task_id = self._lease, self._task.request.id
        self._stream = Writer(self._now.stream_sender, task_id, lease.fence, lease.batches_sent)
        if lease.mid_answer and not role.stream_restart:
            raise WorkerLost(
                f"its worker was lost in the middle of its stream, and role {role.name!r} does not "
                f"begin one anew (stream_restart)",
                {"attempts": attempts_as_json(self._attempts)},
            )
        if lease.mid_answer:
            self._stream.restart("", WorkerLost.__name__)

    def _shared(self, call: CompletionCall, role: Role) -> ChainAnswer | None:
        """
        Return the answer that another task got to this very call; None: make it.

        Raises:
            WaitsForSharedAnswer: Another one is making it; this task waits in Redis.
        """
        if not self._lease or not role.cache:
            return None
        if (left_s := self._left_s(call, role)) <= 0:
            raise self._too_late(call)
        recorder = AttemptRecorder(self._ledger_fields(call), self._lease, self._clock)
        return responses.shared(call, role, self._now.settings, self._lease, recorder, left_s)

    def _route(self, call: CompletionCall, role: Role) -> ChainAnswer:
        if self._left_s(call, role) <= 0:
            raise self._too_late(call)
        if call.stream:
            self._open_stream(role)
        recorder = AttemptRecorder(self._ledger_fields(call), self._lease, self._clock)
        try:
            return self._now.walker.walk(
                call,
                role,
                task_id=self._task.request.id,
                recorder=recorder,
                deadline=time.monotonic() + self._left_s(call, role),
                earlier=self._attempts,
                listener=self._stream,
            )
        finally:
            if recorder.rows:
                redis_queue.write(self._now.store.client, recorder.rows)

    def _ledger_fields(self, call: CompletionCall) -> TaskFields:
        """Return what the task's rows in the ledger have in common."""
        return {
            "task_id": self._task.request.id,
            "role": call.role,
            "queued_ms": self._queued_ms,
            "worker": _worker(os.getpid()),
            "roles_version": self._now.settings.version,
            "metadata": dict(call.metadata),
        }

    def _succeed(self, call: CompletionCall, routed: ChainAnswer) -> Result:
        result = write_result(
            routed.answer(self._task.request.id),
            role=call.role,
            attempts=[*self._attempts, *routed.attempts],
            queued_ms=self._queued_ms,
            request_id=routed.completion.request_id,
            duplicates=self._lease.duplicates if self._lease else 0,
        )
        opens = self._queue(call.role) if routed.admits_all else ""
        keep_s = self._lease.keep_s if self._lease else 0
        cached = responses.kept(self._task.request.id, routed, keep_s) if keep_s else NOT_CACHED
        try:
            self._settle(result, states.SUCCESS, opens=opens, cached=cached)
        except ResultTooLarge as error:
            self._fail(error)
            raise
        return result

    def _fail(self, error: Exception) -> None:
        """Settle the task with its error, and keep it as a dead letter."""
        self._ensure_begun()
        role, options = dead_letter_fields(self._task.request)
        dead = {
            "role": role,
            "error": type(error).__name__,
            "message": str(error) if isinstance(error, BreakwaterError) else "a fault of ours",
            "attempts": json.dumps(
                getattr(error, "attempts", None) or attempts_as_json(self._attempts)
            ),
            "options": seal(json.dumps(options)),
        }
        log.warning("dead_letter", task_id=self._task.request.id, error=dead["error"])
        self._settle(error, states.FAILURE, dead=dead)

    def _settle(
        self,
        result: Any,
        state: str,
        *,
        opens: str = "",
        dead: Mapping[str, str] | None = None,
        cached: responses.CacheEntry = NOT_CACHED,
    ) -> None:
        if not self._lease:
            return
        backend, request = self._task.backend, self._task.request
        meta = backend.meta(request.id, result, state, request)
        if len(meta) > MAX_BYTES and state == states.SUCCESS:
            raise ResultTooLarge(
                f"the result has {len(meta)} bytes as JSON; at most {MAX_BYTES} are kept, as of a "
                f"prompt; a smaller max_output_tokens gives a shorter answer",
                {"attempts": result["attempts"]},
            )
        if self._stream:
            self._stream.finish()
        settlement = Settlement(
            request.id, meta, backend.expires,
            opens=opens, dead=dead or {}, keep_s=cached.keep_s, answer=cached.answer,
        )  # fmt: skip
        if not self._lease.settle(settlement):
            raise Ignore("another delivery of this task has begun")
        request.settled = True  # Celery's tracer has nothing left to store
        role = dead["role"] if dead else result["role"]
        observers.settled(role, "failed" if dead else "succeeded", self._age_s())

    def _wait(self, call: CompletionCall, role: Role, nothing: NothingAvailable) -> None:
        """Put the task back until a target may be asked again; its whole queue, if none may now."""
        self._ensure_begun()
        if nothing.attempts and {a.error for a in nothing.attempts} == {HostFault.__name__}:
            why = "; ".join(dict.fromkeys(attempt.why for attempt in nothing.attempts))
            log.error("host_cannot_call", task_id=self._task.request.id, role=role.name, why=why)
        left_s = self._left_s(call, role)
        closed_s, why = self._now.parking.closed_for(role)
        if max(closed_s, nothing.wait_s) >= left_s:
            error = self._too_late(call)
            self._fail(error)
            raise error
        if closed_s:
            trial_count = self._now.parking.trial_count(role)
            self._requeue(call, Park(round(closed_s * 1000), why, trial_count))
        else:
            tries = len(self._attempts) // max(1, len(role.chain))
            wait_s = nothing.wait_s + _jitter_s(tries, left_s - nothing.wait_s)
            self._requeue(call, Delay(round(wait_s * 1000) + 1))

    def _repeat(self, call: CompletionCall, role: Role, fault: Exception) -> bool:
        """Put the task back after a fault that is not its own; not for ever."""
        if not self._lease or self._lease.repeats >= MAX_REPEATS:
            return False
        self._lease.repeats += 1
        self._attempts += self._lease.failed
        log.warning("repeat", task_id=self._task.request.id, error=type(fault).__name__)
        delay_s = _jitter_s(self._lease.repeats, self._left_s(call, role))
        self._requeue(call, Delay(round(delay_s * 1000) + 1))
        return True

    def _requeue(self, call: CompletionCall, wait: Delay | Park) -> None:
        if not self._lease:
            raise ChainExhausted(
                f"no target of role {call.role!r} can serve now, and only a queued task can wait",
                {"attempts": attempts_as_json(self._attempts)},
            )
        self._lease.attempts = self._attempts
        self._lease.requeue(self._queue(call.role), wait, self._enqueued_ms)

    def _queue(self, role: str) -> str:
        settings = self._now.settings
        return queue_of(role) if role in {*settings.roles, *settings.removed} else COMMON_QUEUE

    def _was_removed(self, role: str) -> bool:
        """
        Tell a role that this worker does not serve, but served, or others serve, from no role.

        A removed role's own queue keeps its tasks. Those of the common queue wait for a minute, as
        the file may be half written; and for as long as other workers publish the role.
        """
        settings = self._now.settings
        if not self._lease or role in settings.roles or settings.serves_any_role:
            return False
        came_by = (self._task.request.properties or {}).get(TAKEN_FROM)
        if role in settings.removed and (
            came_by == queue_of(role) or self._now.age_s < REMOVAL_GRACE_S
        ):
            return True
        others = roles.published(roles.FRESH_S)
        return bool(others and role in others.roles)

    def _left_s(self, call: CompletionCall, role: Role) -> float:
        return (call.deadline_s or role.deadline_s) - self._age_s()

    def _age_s(self) -> float:
        """Return how long ago the task was enqueued; not less than 0, if the clock was set back."""
        return max(0, self._clock.now_ms() - self._enqueued_ms) / 1000

    def _too_late(self, call: CompletionCall) -> DeadlineExceeded:
        last = f"; the last attempt: {self._attempts[-1].error}" if self._attempts else ""
        return DeadlineExceeded(
            f"no target of role {call.role!r} answered before the deadline{last}",
            {"attempts": attempts_as_json(self._attempts)},
        )


def dead_letter_fields(request: Any) -> tuple[str, dict[str, Any]]:
    """Return a task's role and its options, without the prompt and what belongs to it."""
    try:
        role, _, options = bind_arguments(request.args, request.kwargs)
    except BadTask:
        return "", {}
    known = isinstance(role, str) and NAME.fullmatch(role)
    shown = ("params", "metadata", "deadline_s")
    return role if known else "", {name: options[name] for name in shown if name in options}


def _nobodys_fault(fault: Exception) -> bool:
    """Tell a call that was cut off from our side, or a bug of ours, from a verdict on the task."""
    return isinstance(fault, Cancelled) or not isinstance(fault, BreakwaterError)


def _jitter_s(tries: int, at_most_s: float) -> float:
    """
    Draw a wait between nothing and a bound that doubles with every try.

    Full jitter keeps a thousand waiting tasks from returning at once.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0, min(MAX_WAIT_S, 2.0 ** min(tries, 6), max(at_most_s, 0)))


@cache
def _worker(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"

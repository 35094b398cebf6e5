"""One delivery of a task: the steps from its arguments to its settlement, or back into Redis."""

import time
from typing import Any

import structlog
from celery import Task
from celery.exceptions import Ignore, Reject

from breakwater import roles
from breakwater.attempt import attempts_as_json
from breakwater.calls.call import CompletionCall, bind_arguments
from breakwater.calls.value_types import NAME
from breakwater.config.last_good import REMOVAL_GRACE_S
from breakwater.errors import BreakwaterError, Cancelled, ChainExhausted, WorkerLost
from breakwater.messaging.names import queue_of, role_in
from breakwater.result import Result
from tasks.answering import response_cache
from tasks.answering.runtime import Runtime
from tasks.answering.settling import Settler
from tasks.answering.task_state import TaskState
from tasks.answering.waiting import delay, log_host_faults, wait_for_target
from tasks.answering.walk import ChainAnswer, NothingAvailable
from tasks.config import Role
from tasks.delivery.lease import AlreadySettled, DeliverySuperseded, HasHistory, Lease
from tasks.delivery.waits import Delay, Park
from tasks.delivery.worker_transport import TAKEN_FROM
from tasks.ledger import redis_queue, row_spool
from tasks.streaming.writer import Writer

MAX_REPEATS = 3
"""How often a task is repeated after a call that was cut off, or a bug of ours, before it fails."""
REMOVED_ROLE_DELAY_MS = 5_000
"""How long a task of a removed role is out of sight: by then the worker has left its queue."""

log = structlog.get_logger("breakwater")


class TaskExecution:
    """
    Runs one delivery of a task.

    Use it as a context manager: within, the task's calls can be ended from outside.

    Args:
        task: Celery's, with its request.
        lease: None if there is no message to settle or requeue: the task was called directly, or
            it runs eagerly.
        tag: The delivery's.
        runtime: The task keeps it to its end, also if the settings change meanwhile.
    """

    def __init__(self, task: Task, lease: Lease | None, tag: str, runtime: Runtime) -> None:
        self._tag = tag
        self._lease = lease
        self._runtime = runtime
        self._state = TaskState(task.request, lease, runtime)
        self._settler = Settler(task, self._state)

    @classmethod
    def of(cls, task: Task, runtime: Runtime) -> "TaskExecution":
        """Return the execution of a task that has been taken and has not begun."""
        tag = (getattr(task.request, "properties", None) or {}).get("delivery_tag")
        if not tag or task.request.is_eager:
            return cls(task, None, "", runtime)
        role = role_in(task.request.args, task.request.kwargs)
        queue = ""
        if isinstance(role, str) and NAME.fullmatch(role):
            queue = queue_of(role)
        lease = Lease(
            runtime.store, task.request.id, tag, queue, runtime.keeper, keep_rows=row_spool.keep
        )
        return cls(task, lease, tag, runtime)

    def __enter__(self) -> "TaskExecution":
        """Let the keeper end this thread's call if the task is settled elsewhere."""
        if self._lease:
            self._runtime.keeper.task_started(self._tag, self._lease)
        return self

    def __exit__(self, *_: object) -> None:
        """Unregister this thread: it may run another task now."""
        if self._lease:
            self._runtime.keeper.task_finished(self._tag)

    def answer(self, args: Any, kwargs: Any) -> Result:
        """
        Walk the chain and settle the result.

        Raises:
            AlreadySettled: The task has a result.
            Ignore: The task waits in Redis, was settled elsewhere, or another delivery runs it.
            Reject: Redis is unavailable; the message goes back.
            BreakwaterError: The task failed for good; the error is its result.
        """
        try:
            return self._answer(args, kwargs)
        except HasHistory:
            self._state.load_history()
        return self._answer(args, kwargs)

    def _answer(self, args: Any, kwargs: Any) -> Result:
        call, role = self._call_and_role(args, kwargs)
        if role is None:
            self._requeue(call, Delay(REMOVED_ROLE_DELAY_MS))
            raise Ignore("its role was removed; it waits in the role's queue")
        try:
            routed = self._shared_answer(call, role) or self._walk(call, role)
        except NothingAvailable as nothing:
            self._wait(call, role, nothing)
        except (HasHistory, AlreadySettled, Ignore, Reject):
            raise
        except DeliverySuperseded as error:
            if self._lease and not self._lease.has_begun:
                self._lease.begin()
                raise HasHistory from None
            raise Ignore(str(error)) from None
        except Exception as error:
            self._state.ensure_begun()
            if self._runtime.keeper.stopped:
                raise Ignore("the worker stops; its tasks have gone back") from None
            if not _is_ours(error) or not self._repeat(call, role, error):
                self._settler.fail(error)
                raise
        else:
            return self._settler.succeed(call, routed)
        raise Ignore("the task waits in Redis")

    def _call_and_role(self, args: Any, kwargs: Any) -> tuple[CompletionCall, Role | None]:
        """Read the arguments and find the role; None: the role was removed."""
        try:
            self._accuse()
            if self._lease and self._lease.is_given_up:
                raise WorkerLost(
                    f"{self._lease.lost} workers were lost while they ran this task, "
                    f"{self._lease.lost_alone} of them while they ran nothing else"
                )
            call = CompletionCall.of(*bind_arguments(args, kwargs))
            if self._was_removed(call.role):
                return call, None
            role = self._runtime.settings.role(call.role)
            self._runtime.settings.check_params(role, call.params)
        except Exception as error:
            self._settler.fail(error)
            raise
        return call, role

    def _accuse(self) -> None:
        """
        Count a failure of the provider during whose call a worker was lost that ran nothing else.

        The first such loss of a task counts for nothing: operators and full hosts kill workers too.
        """
        if self._lease and self._lease.accused in self._runtime.settings.providers:
            self._runtime.health.report_lost_worker(self._lease.accused)

    def _was_removed(self, role: str) -> bool:
        """
        Return whether a role was removed; a role that never was is a fault of the task instead.

        The queue of a removed role keeps its tasks. A task of the common queue waits for a minute,
        as the file may be half written, and for as long as other workers publish the role.
        """
        settings = self._runtime.settings
        if not self._lease or role in settings.roles or settings.serves_any_role:
            return False
        if role in settings.removed:
            taken_from = (self._state.request.properties or {}).get(TAKEN_FROM)
            if taken_from == queue_of(role) or self._runtime.age_s < REMOVAL_GRACE_S:
                return True
        others = roles.published(roles.FRESH_S)
        return bool(others and role in others.roles)

    def _shared_answer(self, call: CompletionCall, role: Role) -> ChainAnswer | None:
        """
        Return the answer that another task got to an equal call; None: this task makes the call.

        Raises:
            WaitsForSharedAnswer: Another task makes the call; this one waits in Redis.
        """
        if not self._lease or not role.cache:
            return None
        left_s = self._left_s(call, role)
        recorder = self._state.recorder(call)
        return response_cache.shared(
            call, role, self._runtime.settings, self._lease, recorder, left_s
        )

    def _walk(self, call: CompletionCall, role: Role) -> ChainAnswer:
        deadline = time.monotonic() + self._left_s(call, role)
        if call.stream:
            self._open_stream(role)
        recorder = self._state.recorder(call)
        try:
            return self._runtime.walker.walk(
                call,
                role,
                task_id=self._state.request.id,
                recorder=recorder,
                deadline=deadline,
                earlier=self._state.attempts,
                listener=self._state.stream,
            )
        finally:
            if recorder.rows:
                redis_queue.write(self._runtime.store.client, recorder.rows)

    def _left_s(self, call: CompletionCall, role: Role) -> float:
        """
        Return the seconds until the deadline.

        Raises:
            DeadlineExceeded: It has passed.
        """
        left_s = self._state.left_s(call, role)
        if left_s <= 0:
            raise self._state.deadline_exceeded(call)
        return left_s

    def _open_stream(self, role: Role) -> None:
        """
        Open the task's stream, and retract the part of an answer that a lost worker published.

        Raises:
            WorkerLost: There is such a part, and the role does not restart streams.
        """
        if not self._lease:
            return
        self._lease.ensure_begun()
        lease, task_id = self._lease, self._state.request.id
        stream = Writer(self._runtime.stream_sender, task_id, lease.fence, lease.batches_sent)
        self._state.stream = stream
        if lease.mid_answer and not role.stream_restart:
            raise WorkerLost(
                f"its worker was lost in the middle of its stream, and role {role.name!r} does not "
                f"restart streams (stream_restart)",
                {"attempts": attempts_as_json(self._state.attempts)},
            )
        if lease.mid_answer:
            stream.restart("", WorkerLost.__name__)

    def _wait(self, call: CompletionCall, role: Role, nothing: NothingAvailable) -> None:
        """Requeue the task until a target may be called; park its queue if none may be now."""
        state = self._state
        state.attempts += nothing.attempts
        state.ensure_begun()
        log_host_faults(state.request.id, role, nothing)
        tries = len(state.attempts) // max(1, len(role.chain))
        wait = wait_for_target(
            role, nothing, self._runtime.parking, tries, state.left_s(call, role)
        )
        if wait is None:
            error = state.deadline_exceeded(call)
            self._settler.fail(error)
            raise error
        self._requeue(call, wait)

    def _repeat(self, call: CompletionCall, role: Role, fault: Exception) -> bool:
        """Requeue the task after a fault that is not its own; False: it was repeated enough."""
        state, lease = self._state, self._lease
        if not lease or lease.repeats >= MAX_REPEATS:
            return False
        lease.repeats += 1
        state.attempts += lease.failed
        log.warning("repeat", task_id=state.request.id, error=type(fault).__name__)
        self._requeue(call, delay(0, lease.repeats, state.left_s(call, role)))
        return True

    def _requeue(self, call: CompletionCall, wait: Delay | Park) -> None:
        state = self._state
        if not self._lease:
            raise ChainExhausted(
                f"no target of role {call.role!r} can serve now, and only a queued task can wait",
                {"attempts": attempts_as_json(state.attempts)},
            )
        self._lease.attempts = state.attempts
        self._lease.requeue(state.queue(call.role), wait, state.enqueued_ms)


def _is_ours(error: Exception) -> bool:
    """Return whether an error is a bug, or a call that this side ended; no verdict on the task."""
    return isinstance(error, Cancelled) or not isinstance(error, BreakwaterError)

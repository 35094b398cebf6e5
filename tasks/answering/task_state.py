"""What a worker knows of a task that it runs: its lease, its attempts, its age and its deadline."""

from typing import Any

from breakwater.attempt import attempts_as_json
from breakwater.calls.call import CompletionCall
from breakwater.errors import DeadlineExceeded
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.messaging.times import Clock, enqueued_ms
from breakwater.redis.process_name import process_name
from tasks.answering.runtime import Runtime
from tasks.config import Role
from tasks.delivery.lease import Lease
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.streaming.writer import Writer


class TaskState:
    """
    One delivery of a task, and the history of the task before it.

    Args:
        request: Celery's.
        lease: None if there is no message to settle or requeue: the task was called directly, or
            it runs eagerly.
        runtime: The task keeps it to its end, also if the settings change meanwhile.
    """

    def __init__(self, request: Any, lease: Lease | None, runtime: Runtime) -> None:
        self.request = request
        self.lease = lease
        self.runtime = runtime
        self.stream: Writer | None = None
        """Publishes the answer while it comes; None if the task is not streamed."""
        properties = None
        if lease:
            properties = getattr(request, "properties", None)
        self._clock = Clock.of(properties)
        self._started_ms = self._clock.now_ms()
        self.load_history()

    def load_history(self) -> None:
        """Take over from the lease what earlier deliveries left."""
        self.attempts = list(self.lease.attempts) if self.lease else []
        noted_ms = self.lease.enqueued_ms if self.lease else None
        self.enqueued_ms = noted_ms or enqueued_ms(self.request.headers) or self._started_ms
        self.queued_ms = max(0, self._started_ms - self.enqueued_ms)

    def ensure_begun(self) -> None:
        """
        Begin the task in Redis, if it has not begun.

        Raises:
            HasHistory: The task was assumed to be new, and is not.
        """
        if self.lease:
            self.lease.ensure_begun()

    @property
    def age_s(self) -> float:
        """Seconds since the task was enqueued; at least 0, also if the clock was set back."""
        return max(0, self._clock.now_ms() - self.enqueued_ms) / 1000

    def left_s(self, call: CompletionCall, role: Role) -> float:
        """Return the seconds until the task's deadline."""
        return (call.deadline_s or role.deadline_s) - self.age_s

    def deadline_exceeded(self, call: CompletionCall) -> DeadlineExceeded:
        """Return the error of a task whose deadline has passed."""
        last = ""
        if self.attempts:
            last = f"; the last attempt: {self.attempts[-1].error}"
        return DeadlineExceeded(
            f"no target of role {call.role!r} answered before the deadline{last}",
            {"attempts": attempts_as_json(self.attempts)},
        )

    def queue(self, role: str) -> str:
        """Return the queue to which tasks of a role go back."""
        settings = self.runtime.settings
        if role in {*settings.roles, *settings.removed}:
            return queue_of(role)
        return COMMON_QUEUE

    def recorder(self, call: CompletionCall) -> AttemptRecorder:
        """Return a recorder for the attempts of one walk."""
        return AttemptRecorder(
            {
                "task_id": self.request.id,
                "role": call.role,
                "queued_ms": self.queued_ms,
                "worker": process_name(),
                "roles_version": self.runtime.settings.version,
                "metadata": dict(call.metadata),
            },
            self.lease,
            self._clock,
        )

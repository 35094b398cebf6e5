"""
Number the attempts of one task, and send their rows to the ledger.

Rows travel with what the delivery tells Redis anyway: the call that goes out, its failure, the
result. The stream `ledger` takes them there, and a worker drains it into the database.
"""

from collections.abc import Mapping
from typing import Any

from breakwater.attempt import NOT_CALLED, Attempt
from breakwater.messaging.times import Clock
from breakwater.redis.encryption import seal
from tasks.delivery.lease import Lease
from tasks.telemetry import attempt_log, observers


class AttemptRecorder:
    """
    The attempts of one task while this worker runs it.

    Args:
        task: What their rows have in common: task_id, role, queued_ms, worker, roles_version,
            metadata.
        lease: Takes the rows along; without one they stay in `rows`.
        clock: Redis' time; without one the host's.
    """

    def __init__(
        self, task: Mapping[str, Any], lease: Lease | None = None, clock: Clock | None = None
    ) -> None:
        self._task = task
        self._lease = lease
        self._clock = clock or Clock.host()
        self._number = lease.numbered if lease else 0
        self._is_out = False
        self.rows: list[str] = []

    def number(self) -> int:
        """Return the number of the next attempt; a task's count from 1, whoever runs it."""
        self._number += 1
        return self._number

    def now_ms(self) -> int:
        """Return the time by which attempts are dated, in ms."""
        return self._clock.now_ms()

    def calling(self, attempt: Attempt) -> None:
        """
        Note that a call goes out now; if the worker is lost, its row stays as it is here.

        Raises:
            DeliverySuperseded: It must not: another delivery has begun, or the task was settled.
            Cancelled: Redis is away, so nobody knows.
        """
        if self._lease:
            self._lease.calling(self._row(attempt), attempt.number)
        self._is_out = True

    def add(self, attempt: Attempt) -> None:
        """
        Note an attempt that is over.

        Raises:
            HasHistory: The task is not new, and this was not its next attempt.
        """
        went_out, self._is_out = self._is_out, False
        if attempt.is_abandoned and not went_out:
            return
        if self._lease:
            self._lease.ensure_begun()
        attempt_log.write(attempt, self._task["task_id"], self._task["role"])
        observers.attempted(self._task["role"], attempt)
        row = self._row(attempt)
        if not self._lease:
            self.rows.append(row)
        elif attempt.outcome in NOT_CALLED:
            self._lease.rejected(row, attempt.number)
        elif attempt.outcome == "succeeded":
            self._lease.answered(row)  # which is told with the result
        else:
            self._lease.fail(row, None if attempt.is_abandoned else attempt.as_dict())

    def _row(self, attempt: Attempt) -> str:
        return seal(attempt.row(self._task))

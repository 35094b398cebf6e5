"""
Number the attempts of one task, and send them to the sinks.

A row of the ledger is sent to Redis with a step of the delivery that is sent anyway: the call that
goes out, its failure, or the result. It arrives in the stream `ledger`, and a worker drains that
stream into the database.
"""

from itertools import count
from typing import TYPE_CHECKING

from breakwater.attempt import NOT_CALLED, Attempt
from breakwater.messaging.times import Clock
from breakwater.redis.encryption import seal
from tasks.delivery.lease import Lease
from tasks.telemetry import sinks
from tasks.telemetry.sinks import FinishedAttempt, TaskFields

if TYPE_CHECKING:
    from tasks.config import ProviderSettings
    from tasks.providers.base import Completion


class LedgerSink:
    """
    Builds the rows of one task for the ledger.

    Args:
        lease: Sends the rows; without one they stay in `rows`.
    """

    def __init__(self, lease: Lease | None) -> None:
        self._lease = lease
        self.rows: list[str] = []

    def record(self, finished: FinishedAttempt) -> None:
        """Hand the attempt's row to the lease."""
        attempt = finished.attempt
        row = seal(attempt.row(finished.task))
        if not self._lease:
            self.rows.append(row)
        elif attempt.outcome in NOT_CALLED:
            self._lease.rejected(row, attempt.number)
        elif attempt.outcome == "succeeded":
            self._lease.answered(row)  # sent with the result
        else:
            self._lease.fail(row, attempt)


class AttemptRecorder:
    """
    Records the attempts of one task while this worker runs it.

    Args:
        task: The fields that their rows share.
        lease: Sends the rows; without one they stay in `rows`.
        clock: Redis' time; without one the host's.
    """

    def __init__(
        self, task: TaskFields, lease: Lease | None = None, clock: Clock | None = None
    ) -> None:
        self._task = task
        self._lease = lease
        self._clock = clock or Clock.host()
        last = lease.numbered if lease else 0
        self._numbers = count(last + 1)  # atomic: two calls of a task may run at once
        self._calls: set[int] = set()  # numbers of the attempts whose call went out
        self._ledger = LedgerSink(lease)
        self._sinks = [*sinks.installed, self._ledger]

    @property
    def rows(self) -> list[str]:
        """The rows that no lease has sent."""
        return self._ledger.rows

    def number(self) -> int:
        """Return the number of the next attempt, counted from 1 over all deliveries of the task."""
        return next(self._numbers)

    def now_ms(self) -> int:
        """Return the time by which attempts are dated, in ms."""
        return self._clock.now_ms()

    def calling(self, attempt: Attempt) -> None:
        """
        Record that a call goes out now; if the worker is lost, its row stays as it is here.

        Raises:
            DeliverySuperseded: The call must not go out: another delivery has begun, or the task
                was settled.
            Cancelled: Redis is away, so that neither can be ruled out.
        """
        if self._lease:
            self._lease.calling(seal(attempt.row(self._task)), attempt.number)
        self._calls.add(attempt.number)

    def record(
        self,
        attempt: Attempt,
        provider: "ProviderSettings",
        model: str,
        completion: "Completion | None" = None,
    ) -> None:
        """
        Record an attempt that is over.

        An abandoned call that never went out is not recorded: it was no attempt.

        Args:
            provider: The settings of the target's provider.
            model: The model that was requested.
            completion: The answer, if there is one.

        Raises:
            HasHistory: The task is not new, so the attempt has another number.
        """
        went_out = attempt.number in self._calls
        self._calls.discard(attempt.number)
        if attempt.is_abandoned and not went_out:
            return
        if self._lease:
            self._lease.ensure_begun()
        finished = FinishedAttempt(self._task, attempt, provider, model, completion)
        sinks.record(finished, self._sinks)

"""
One delivery of a task: it begins, its calls go out, and it is settled or requeued.

A delivery that begins gets a fencing number. A worker that slept through its lease finds that its
number is old: its call does not go out, and its result is not written.
"""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import structlog
from celery.exceptions import Ignore, Reject
from redis.exceptions import RedisError

from breakwater.attempt import Attempt, attempts_as_json, read_attempts
from breakwater.errors import Cancelled
from breakwater.messaging.settlement import Settlement
from breakwater.redis.connection import explain, is_transient
from breakwater.redis.encryption import opened
from breakwater.redis.retry import FOREVER, retry_while_redis_is_down
from tasks.delivery import result_spool
from tasks.delivery.delivery_store import MAX_ALONE, MAX_LOST, Begun, DeliveryStore
from tasks.delivery.lease_keeper import DeliveryKeeper
from tasks.delivery.waits import Delay, Park

REFUSED_PAUSE_S = 1.0
"""How long a delivery keeps its slot when Redis refuses to begin it."""
PARENT_RESTORE_S = 6.0
"""How long a prefork's child waits for its parent to restore a message, which it does every 2 s."""
MAX_CARRIED = 100
"""How many attempts a waiting task keeps; the newest ones."""
LOST_CALL = "its worker was lost while the call was out; it may have been paid"
"""The reason of the attempt that stands for such a call."""
CALLED, REJECTED = "c", "r"
"""The first character of a row. Redis takes the row of a call even from a superseded delivery."""

T = TypeVar("T")

_log = structlog.get_logger("breakwater")


class DeliverySuperseded(Cancelled):
    """Another delivery of this task has begun, or it was settled: this one must not call."""


class HasHistory(Exception):  # noqa: N818 - the task is read again
    """The task was assumed to be new but has history; load it and restart."""


class AlreadySettled(Exception):  # noqa: N818 - it is good news
    """The task has a result already."""


class WaitsForSharedAnswer(DeliverySuperseded):
    """Another task makes an equal call; this task waits in Redis for the answer."""


class Lease:
    """
    One delivery of a task that this process runs.

    Most tasks are new, and their first call goes out at once. So every task is assumed to be new:
    it begins together with its first call, in one step, or when `ensure_begun` is called. If the
    task is not new, that step raises HasHistory.

    Args:
        queue: The queue of its role; empty if that is unknown.
        keeper: Has the message, in case Redis loses it.
        keep_rows: Stores rows of attempts that Redis does not take when the task is requeued.

    Attributes:
        attempts: Attempts of earlier deliveries, and calls whose worker was lost.
        failed: Calls of this delivery that have failed.
        duplicates: How many calls with an unknown end were followed by another call.
        lost: How many workers were lost while they held this task.
        lost_alone: How many of them held no other task.
        accused: The provider of the call that was out when the last worker was lost alone; empty
            if no call was out, or it was the first loss.
        repeats: How often the task was repeated after an error of this program.
        enqueued_ms: When it was enqueued, or retried as a dead letter; None if only its message
            contains that.
        numbered: How many attempts have a number.
        fence: The fencing number of this delivery; empty until it has begun.
        batches_sent: How many batches its stream has.
        mid_answer: Whether the last of them belongs to an answer that did not end.
        waited: Whether it has waited for the answer to another task's call.
        keep_s: How long Redis keeps the answer for equal calls, which wait for it; 0: not at all.
    """

    def __init__(
        self,
        store: DeliveryStore,
        task_id: str,
        tag: str,
        queue: str,
        keeper: DeliveryKeeper | None = None,
        *,
        keep_rows: Callable[[Iterable[str]], object],
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._keep_rows = keep_rows
        self.task_id = task_id
        self._tag = tag
        self._queue = queue
        self._rows: list[str] = []  # that Redis has not taken yet
        self._is_requeued = False
        self.keep_s = 0
        self._read(Begun(""))

    def _read(self, begun: Begun) -> None:
        fields = begun.task
        self.fence = begun.fence
        self._is_new = fields.keys() <= {"fence", "tag"}
        self.lost = int(fields.get("lost", 0))
        self.lost_alone = int(fields.get("lost_alone", 0))
        self.repeats = int(fields.get("repeats", 0))
        self.duplicates = int(fields.get("duplicates", 0))
        self.enqueued_ms: int | None = None
        if "enqueued_ms" in fields:
            self.enqueued_ms = int(fields["enqueued_ms"])
        self.attempts = read_attempts(json.loads(fields.get("attempts", "[]")))
        self.attempts += read_attempts(map(json.loads, fields.get("failed", "").splitlines()))
        self.failed: list[Attempt] = []
        self.accused = ""
        for line in fields.get("lost_calls", "").splitlines():
            call = json.loads(opened(line))
            self.attempts.append(
                Attempt(call["provider"], call["model"], "failed", "WorkerLost", why=LOST_CALL)
            )
            if "accused" in fields:
                self.accused = call["provider"]  # the last one
        self.numbered = int(fields.get("numbered", 0))
        self.batches_sent = int(fields.get("told", 0))
        self.mid_answer = fields.get("telling") == "1"
        self.waited = "aside" in fields

    @property
    def is_given_up(self) -> bool:
        """Whether too many workers were lost with this task."""
        return self.lost >= MAX_LOST and self.lost_alone >= MAX_ALONE

    @property
    def has_begun(self) -> bool:
        """Whether this delivery has begun."""
        return bool(self.fence)

    def ensure_begun(self) -> None:
        """
        Begin the task if it has not begun.

        Raises:
            HasHistory: It is not new; the lease's attributes have changed.
            AlreadySettled, Ignore, Reject: As of `begin`.
        """
        if not self.has_begun:
            self.begin()
            if not self._is_new:
                raise HasHistory

    def begin(self) -> None:
        """
        Begin the task, and load its history.

        Raises:
            AlreadySettled: The task has a result.
            Ignore: Another delivery runs it or has its message, or its role is paused.
            Reject: Redis is unavailable; the message is requeued.
        """
        if self._is_requeued:  # to begin it again would restore its message, a second time
            raise Ignore("its role is paused; it waits in the role's queue")
        try:
            begun = retry_while_redis_is_down(self._begin)
        except RedisError as error:
            if not is_transient(error):
                time.sleep(REFUSED_PAUSE_S)  # a worker would take it at once, and fail again
            raise Reject(f"Redis: {explain(error)[0]}", requeue=True) from None
        if begun.verdict == "settled":
            raise AlreadySettled
        if begun.verdict != "run":
            raise Ignore(f"this delivery is {begun.verdict}")
        self._read(begun)

    def _begin(self, call: str = "", numbered: int = 0) -> Begun:
        return self._unless_lost(
            lambda: self._store.begin(
                self.task_id, self._tag, self._queue, call=call, numbered=numbered
            ),
            lambda begun: begun.verdict == "gone",
        )

    def _unless_lost(self, step: Callable[[], T], is_lost: Callable[[T], bool]) -> T:
        """Run a step; if Redis has lost the message, restore the message and run it again."""
        reply = step()
        if not is_lost(reply) or self._keeper is None:
            return reply
        if self._keeper.holds(self._tag):
            if self._keeper.restore(self._tag):
                return step()
            return reply
        ends_at = time.monotonic() + PARENT_RESTORE_S
        while is_lost(reply) and time.monotonic() < ends_at and not self._keeper.stopped:
            time.sleep(PARENT_RESTORE_S / 10)
            reply = step()
        return reply

    def share(self, digest: str, wait_ms: int, keep_s: int) -> str | None:
        """
        Look up the answer to a call before making it; None: there is no answer, so make the call.

        Args:
            digest: Of everything that the answer depends on.
            wait_ms: How long the task may wait.
            keep_s: How long Redis keeps an answer.

        Raises:
            WaitsForSharedAnswer: Another task makes this call; this one waits in Redis.
            DeliverySuperseded: Another delivery has begun, or the message was requeued.
            Cancelled: Redis is unavailable.
        """
        self.ensure_begun()

        def look_up() -> tuple[str, str]:
            return self._store.share(
                self.task_id, digest, fence=self.fence, tag=self._tag,
                wait_ms=wait_ms, keep_s=keep_s,
            )  # fmt: skip

        try:
            verdict, answer = retry_while_redis_is_down(
                lambda: self._unless_lost(look_up, lambda reply: reply[0] == "lost")
            )
        except RedisError as error:
            raise Cancelled(f"Redis: {explain(error)[0]}") from None
        if verdict == "waits":
            raise WaitsForSharedAnswer(
                "another task makes this call; this one waits for its answer"
            )
        if verdict in {"gone", "lost"}:
            raise DeliverySuperseded("this delivery no longer has the task")
        self.keep_s = 0
        if verdict == "own":
            self.keep_s = keep_s
        return answer or None

    def calling(self, call: str, number: int) -> None:
        """
        Record that a call goes out now.

        Args:
            call: Its row, as it stays if the end of the call is never reported.
            number: The attempt's.

        Raises:
            DeliverySuperseded: The call must not go out: another delivery has begun, or the task
                was settled.
            Cancelled: Redis is unavailable, so the call must not go out either.
        """
        try:
            if self.has_begun:
                self._call(call, number)
            else:
                self._begin_with(call, number)
        except RedisError as error:
            raise Cancelled(f"Redis: {explain(error)[0]}") from None

    def _call(self, call: str, number: int) -> None:
        self.numbered = max(self.numbered, number)
        duplicates = retry_while_redis_is_down(
            lambda: self._store.call(
                self.task_id, self.fence,
                number=number, call=call, numbered=self.numbered, rows=self._rows,
            )
        )  # fmt: skip
        self._rows.clear()
        if duplicates < 0:
            raise DeliverySuperseded("another delivery of this task has begun, or it was settled")
        self.duplicates = duplicates

    def _begin_with(self, call: str, number: int) -> None:
        begun = retry_while_redis_is_down(lambda: self._begin(call, number))
        self._is_requeued = begun.verdict == "paused"
        if begun.verdict != "run":  # `begin` raises the right error
            raise DeliverySuperseded("this task has a history that must be read before its call")
        self._read(begun)

    def rejected(self, row: str, number: int) -> None:
        """Record an attempt without a call; its row goes to Redis with the next step."""
        self.ensure_begun()
        self._rows.append(REJECTED + row)
        self.numbered = max(self.numbered, number)

    def answered(self, row: str) -> None:
        """Record that the call was answered; its row goes to Redis with the result."""
        self._rows.append(CALLED + row)

    def fail(self, row: str, attempt: Attempt) -> None:
        """
        Record that the call of an attempt has failed, or was abandoned.

        An abandoned call may have to be paid. It does not count as a failure.
        """
        self._rows.append(CALLED + row)
        failed = ""
        if not attempt.is_abandoned:
            self.failed.append(attempt)
            failed = json.dumps(attempt.as_dict())
        with suppress(RedisError):
            retry_while_redis_is_down(
                lambda: self._store.call(
                    self.task_id, self.fence,
                    number=attempt.number, numbered=self.numbered, rows=self._rows,
                    may_be_paid=attempt.is_abandoned, failed=failed,
                ),
                1.0,
            )  # fmt: skip
            self._rows.clear()

    def settle(self, settlement: Settlement) -> bool:
        """
        Write the result, however long Redis is unavailable.

        Args:
            settlement: Without what the lease adds: fence, tag, numbers and rows of attempts.

        Returns:
            Whether this is the task's result; False if the task has another one, or another
            delivery has begun.
        """
        self.ensure_begun()
        whole = replace(
            settlement, fence=self.fence, tag=self._tag, numbered=self.numbered,
            rows=tuple(self._rows),
        )  # fmt: skip
        path = None
        if (
            self._is_away
        ):  # the answer is paid for; keep it on disk in case this worker dies waiting
            path = result_spool.keep(whole)
        try:
            verdict = self._store.settle(whole)
        except RedisError as error:
            if not is_transient(error):
                raise
            path = path or result_spool.keep(whole)
            verdict = retry_while_redis_is_down(lambda: self._store.settle(whole), FOREVER)
        if path:
            path.unlink(missing_ok=True)
        if verdict == "opened":
            _log.info("queue.opened", queue=whole.opens, why="a task was answered")
        return verdict in {"settled", "opened"}

    @property
    def _is_away(self) -> bool:
        return self._keeper is not None and self._keeper.is_away

    def requeue(self, queue: str, wait: Delay | Park, enqueued_ms: int = 0) -> None:
        """
        Put the task back into its role's queue, with the attempts so far.

        Args:
            wait: How it waits.
            enqueued_ms: When it was enqueued; its message may not contain that.

        Raises:
            RedisError: Redis did not take it; the rows of its attempts are in the sink.
        """
        self.ensure_begun()
        attempts = json.dumps(attempts_as_json(self.attempts[-MAX_CARRIED:]))

        def step() -> int:
            return self._store.requeue(
                self.task_id, wait, fence=self.fence, tag=self._tag, queue=queue,
                attempts=attempts, repeats=self.repeats, numbered=self.numbered,
                enqueued_ms=enqueued_ms, rows=self._rows,
            )  # fmt: skip

        try:
            verdict = retry_while_redis_is_down(
                lambda: self._unless_lost(step, lambda verdict: verdict < 0)
            )
        except RedisError:
            self._keep_rows(row[1:] for row in self._rows)
            raise
        if isinstance(wait, Park) and verdict > 1:
            _log.warning("queue.parked", queue=queue, for_ms=wait.ms, why=wait.reason)

"""
One task in hand: begin it, let its calls go out, and settle it or put it back.

Whoever begins gets a fencing number. A worker that slept through its lease finds its number old:
its call does not go out, its result is not written.
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

REFUSED_S = 1.0
"""How long a slot is held when Redis refuses to begin its task."""
PARENT_S = 6.0
"""How long a prefork's child waits for its parent to restore a message; it looks every 2 s."""
MAX_CARRIED = 100
"""Attempts of earlier walks that are kept with a waiting task; the newest are."""
LOST = "its worker was lost while the call was out; it may have been paid"
"""The reason of the attempt that stands for such a call."""
CALL, REJECTED = "c", "r"
"""What a row begins with on its way: a call's is taken also from a delivery that is too late."""

T = TypeVar("T")

_log = structlog.get_logger("breakwater")


class DeliverySuperseded(Cancelled):
    """Another delivery of this task has begun, or it was settled: this one must not call."""


class HasHistory(Exception):  # noqa: N818 - the task is looked at again
    """There is something to know of a task that was taken for a new one: start over."""


class AlreadySettled(Exception):  # noqa: N818 - it is good news
    """The task has a result already."""


class WaitsForSharedAnswer(DeliverySuperseded):
    """Another task makes this very call; this one waits in Redis for the answer."""


class Lease:
    """
    A task that this process runs.

    Most tasks are new, and their first call goes out at once. So every task is assumed to be new:
    it begins together with that call, in one step, or when `ensure_begun` is called. A task that is
    not new raises HasHistory then.

    Args:
        queue: Its role's own; empty if it is not known.
        keeper: Has the message, should Redis lose it.
        keep_rows: Stores rows of attempts that Redis does not take when the task is put back.

    Attributes:
        attempts: Of earlier deliveries; also calls whose worker was lost.
        failed: Calls of this delivery that have failed.
        duplicates: How many of those were followed by another call.
        lost: How many workers were lost with this task in their hands.
        lost_alone: How many of them had nothing else.
        accused: The provider whose call was out when the last of them was lost alone; empty if
            none was, or it was the first.
        repeats: How often it was repeated after a fault of ours.
        enqueued_ms: When it was enqueued, or given a second life; None if only its message knows.
        numbered: How many attempts have a number.
        fence: Of this delivery.
        batches_sent: How many batches were told on its stream.
        mid_answer: Whether the last of them was of an answer that did not come to its end.
        waited: It has waited for the answer to another task's call.
        keep_s: How long its answer is kept for the same calls, which wait for it; 0: it is not.
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
        self._is_put_back = False
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
        self.enqueued_ms = int(fields["enqueued_ms"]) if "enqueued_ms" in fields else None
        self.attempts = read_attempts(json.loads(fields.get("attempts", "[]")))
        self.attempts += read_attempts(map(json.loads, fields.get("failed", "").splitlines()))
        self.failed: list[Attempt] = []
        self.accused = ""
        for line in fields.get("lost_calls", "").splitlines():
            call = json.loads(opened(line))
            self.attempts.append(
                Attempt(call["provider"], call["model"], "failed", "WorkerLost", why=LOST)
            )
            if "accused" in fields:
                self.accused = call["provider"]  # the last one
        self.numbered = int(fields.get("numbered", 0))
        self.batches_sent = int(fields.get("told", 0))
        self.mid_answer = fields.get("telling") == "1"
        self.waited = "aside" in fields

    @property
    def is_given_up(self) -> bool:
        """Whether it has cost too many workers their lives."""
        return self.lost >= MAX_LOST and self.lost_alone >= MAX_ALONE

    @property
    def has_begun(self) -> bool:
        """Tell whether the task has begun."""
        return bool(self.fence)

    def ensure_begun(self) -> None:
        """
        Begin the task, if it has not begun.

        Raises:
            HasHistory: It is not new; what the lease says of it has changed.
            AlreadySettled, Ignore, Reject: As of `begin`.
        """
        if not self.has_begun:
            self.begin()
            if not self._is_new:
                raise HasHistory

    def begin(self) -> None:
        """
        Begin the task, and learn what there is to know of it.

        Raises:
            AlreadySettled: There is a result.
            Ignore: Another delivery of it runs, or has its message; or its role is paused.
            Reject: Redis is away; the message goes back.
        """
        if self._is_put_back:  # to begin it again would restore its message, a second time
            raise Ignore("its role is paused; it waits in the role's queue")
        try:
            begun = retry_while_redis_is_down(self._begin)
        except RedisError as error:
            if not is_transient(error):
                time.sleep(REFUSED_S)  # it would be taken, and refused, again at once
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
        """Do a step, once more if Redis had lost the message and has it again."""
        told = step()
        if not is_lost(told) or self._keeper is None:
            return told
        if self._keeper.holds(self._tag):
            return step() if self._keeper.restore(self._tag) else told
        ends_at = time.monotonic() + PARENT_S
        while is_lost(told) and time.monotonic() < ends_at and not self._keeper.stopped:
            time.sleep(PARENT_S / 10)
            told = step()
        return told

    def share(self, digest: str, wait_ms: int, keep_s: int) -> str | None:
        """
        Ask for the answer to a call, before making it; None: there is none, make it.

        Args:
            digest: Of all that the answer depends on.
            wait_ms: How long the task has to wait at most.
            keep_s: How long an answer is kept.

        Raises:
            WaitsForSharedAnswer: Another task makes this call; this one waits in Redis.
            DeliverySuperseded: Another delivery has begun, or the message has gone back.
            Cancelled: Redis is away, so nobody knows.
        """
        self.ensure_begun()
        try:
            told, answer = retry_while_redis_is_down(
                lambda: self._unless_lost(
                    lambda: self._store.share(
                        self.task_id,
                        digest,
                        fence=self.fence,
                        tag=self._tag,
                        wait_ms=wait_ms,
                        keep_s=keep_s,
                    ),
                    lambda shared: shared[0] == "lost",
                )
            )
        except RedisError as error:
            raise Cancelled(f"Redis: {explain(error)[0]}") from None
        if told == "waits":
            raise WaitsForSharedAnswer(
                "another task makes this call; this one waits for its answer"
            )
        if told in {"gone", "lost"}:
            raise DeliverySuperseded("this delivery has the task no more")
        self.keep_s = keep_s if told == "own" else 0
        return answer or None

    def calling(self, call: str, number: int) -> None:
        """
        Note that a call goes out now.

        Args:
            call: Its row, as it stays if nobody hears the end of it.
            number: Of the attempt.

        Raises:
            DeliverySuperseded: It must not: another delivery has begun, or the task was settled.
            Cancelled: Redis is away, so nobody knows.
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
                self.task_id,
                self.fence,
                number=number,
                call=call,
                numbered=self.numbered,
                rows=self._rows,
            )
        )
        self._rows.clear()
        if duplicates < 0:
            raise DeliverySuperseded("another delivery of this task has begun, or it was settled")
        self.duplicates = duplicates

    def _begin_with(self, call: str, number: int) -> None:
        begun = retry_while_redis_is_down(lambda: self._begin(call, number))
        self._is_put_back = begun.verdict == "paused"
        if begun.verdict != "run":  # `begin` says how it is
            raise DeliverySuperseded(
                "there is something to know of this task before it makes a call"
            )
        self._read(begun)

    def rejected(self, row: str, number: int) -> None:
        """Note an attempt for which nothing went out; Redis is told with the next step."""
        self.ensure_begun()
        self._rows.append(REJECTED + row)
        self.numbered = max(self.numbered, number)

    def answered(self, row: str) -> None:
        """Note that the call was answered; Redis is told with the result."""
        self._rows.append(CALL + row)

    def fail(self, row: str, attempt: Attempt) -> None:
        """
        Note that the call of an attempt has failed, or was abandoned.

        An abandoned call may have to be paid; it is not remembered as a failure.
        """
        self._rows.append(CALL + row)
        failed = ""
        if not attempt.is_abandoned:
            self.failed.append(attempt)
            failed = json.dumps(attempt.as_dict())
        with suppress(RedisError):
            retry_while_redis_is_down(
                lambda: self._store.call(
                    self.task_id,
                    self.fence,
                    number=attempt.number,
                    numbered=self.numbered,
                    rows=self._rows,
                    may_be_paid=attempt.is_abandoned,
                    failed=failed,
                ),
                1.0,
            )
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
        # The answer is paid for. It is also written to disk, in case this worker dies waiting.
        path = result_spool.keep(whole) if self._is_away else None
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

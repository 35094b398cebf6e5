"""
The delivery in Redis: each step is one script and one round trip.

The head of `breakwater/messaging/scripts/delivery.lua` explains the keys. The scripts read the time
from Redis alone. Each `RedisError` passes unchanged.

A worker lets go of a message with one of these verbs:

    acknowledge        the task is settled or waits elsewhere: deleted; if it is not, requeued
    requeue            the task cannot continue: to the head of its queue, or out of it for a delay
    schedule           the message is not due yet: out of its list until then
    return_unstarted   to the head of its list, unless its task has begun
    return_all         the worker stops: to the head of its list, begun or not
    return_lost        its runner died: the same, and the loss counts against the task
    leave_to_others    this worker does not have its task: to the tail of its list
    dead_letter        it cannot become a task: kept as a dead letter
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from secrets import token_hex
from typing import NamedTuple

import redis

from breakwater.messaging import keys as redis_keys
from breakwater.messaging import task_store
from breakwater.messaging.keys import cache_key, result_key, shared_call_key, task_key
from breakwater.messaging.names import PRIORITIES, list_of
from breakwater.messaging.task_store import TaskStore
from breakwater.redis.batches import batches
from breakwater.redis.script_arguments import named
from breakwater.redis.text import to_text
from tasks.delivery.waits import Delay, Park

LEASE_MS = 12_000
"""A worker that is silent for this long counts as dead, and its messages are requeued."""
TRIAL_WINDOW_MS = 5_000
"""After a queue was parked, its first tasks have this long to show whether a target is back."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""A larger message becomes a dead letter; a prompt of a million tokens has 4 MB."""
MAX_LOST, MAX_ALONE = 5, 3
"""
A task fails after this many workers were lost while they held it, and this many of them held no
other task. `scripts/delivery.lua` has the same numbers.
"""
ALONE = "!"
"""The last character of a tag whose task has a worker of its own."""

SCRIPTS = (
    "take", "tend", "return", "begin", "call", "requeue", "open", "schedule", "dead_letter",
    "revive", "acknowledge", "drop", "pause", "resume", "drain", "heartbeat", "look", "share",
    "stream", "leave_to_others", "restore",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Begun:
    """
    The reply to `begin`.

    Attributes:
        verdict: run; or settled (the task has a result), owned (another delivery runs it), gone
            (the message was requeued meanwhile), paused (the message is requeued now) or
            has_history (the call must not go out before the task's history is read).
        fence: The fencing number of this delivery; of `run` alone.
        task: The fields of `task:ID`; of `run` alone.
    """

    verdict: str
    fence: str = ""
    task: Mapping[str, str] = field(default_factory=dict)


class Tended(NamedTuple):
    """
    The reply to `tend`.

    Attributes:
        lost: Tags that the caller no longer holds.
        parked: The names of the parked queues.
        data: The name of the data in Redis. A new name means that the old data is lost.
        given_up: Tag and task id of each delivery that cost several workers their lives before it
            began. The caller makes it a dead letter.
    """

    lost: list[str]
    parked: list[str]
    data: str
    given_up: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    A message that a worker holds, as Redis had it.

    `task_id` and `fence` are empty where they are unknown; `message` is empty if Redis has it.
    """

    tag: str
    task_id: str = ""
    fence: str = ""
    has_begun: bool = False
    list: str = ""
    message: bytes = b""


@functools.cache  # 240 kB
def packaged() -> Mapping[str, str]:
    """Read the scripts of workers and clients; each contains the part that all of them share."""
    return {**task_store.packaged(), **task_store.read_scripts("tasks.delivery", SCRIPTS)}


class DeliveryStore(TaskStore):
    """
    Runs the scripts.

    Args:
        client: Any redis-py client. Its timeouts and retries apply.
        sources: The scripts by name; tests use scripts with a clock that they can move.
    """

    def __init__(self, client: redis.Redis, sources: Mapping[str, str] | None = None) -> None:
        super().__init__(client, sources or packaged())

    def take_command(
        self,
        queues: Sequence[str],
        max_messages: int,
        tag: str,
        held: int = 0,
        task_digest: str = "",
    ) -> tuple[list[str], str]:
        """
        Return the keys and the arguments of a take, for a connection that reads the reply later.

        Args:
            queues: In the order in which each may give one message.
            tag: Unique for every take; the tags of the messages begin with it.
            held: How many deliveries the worker holds.
            task_digest: Of the tasks that this worker has; empty: it passes over no message.
        """
        lists = [list_of(queue, priority) for priority in PRIORITIES for queue in queues]
        arguments = named(
            prefix=tag, max=max_messages, lease_ms=LEASE_MS, max_bytes=MAX_MESSAGE_BYTES,
            queues=len(queues), trial_ms=TRIAL_WINDOW_MS, held=held, tasks=task_digest,
        )  # fmt: skip
        return lists, arguments

    def leave_to_others(self, tag: str, task_digest: str, for_ms: int, name: str) -> bool:
        """
        Requeue a message at the tail; workers with the same tasks pass over it for a while.

        Args:
            task_digest: As in `take_command`.
            for_ms: For how long they pass over it.
            name: The task that this worker does not have.

        Returns:
            Whether the message was still taken.
        """
        return bool(self._run("leave_to_others", [], tag, task_digest, for_ms, name))

    def take(
        self, queues: Sequence[str], max_messages: int, tag: str, held: int = 0
    ) -> list[tuple[str, str, bytes]]:
        """Take messages; return the tag, the list and the message of each."""
        lists, arguments = self.take_command(queues, max_messages, tag, held)
        reply = self._run("take", lists, arguments)
        messages = batches(reply[:-1], 3)
        return [(to_text(tag), to_text(list_), message) for tag, list_, message in messages]

    def tend(self, tags: Iterable[str]) -> Tended:
        """Renew the leases of these deliveries; requeue the messages of workers that are silent."""
        lost, parked, data, given_up = self._run("tend", [], LEASE_MS, token_hex(8), *tags)
        pairs = batches(map(to_text, given_up), 2)
        return Tended(
            [to_text(tag) for tag in lost],
            [to_text(name) for name in parked],
            to_text(data),
            [(tag, task_id) for tag, task_id in pairs],
        )

    def restore(self, deliveries: Iterable[Delivery]) -> set[str]:
        """
        Take messages again that Redis lost with its data, unless another delivery has begun them.

        Returns:
            The tags of the messages that this worker holds now.
        """
        fields, messages = [], []
        for delivery in deliveries:
            described = asdict(delivery)
            messages.append(described.pop("message"))
            fields.append(described)
        arguments = named(lease_ms=LEASE_MS, deliveries=fields)
        return {to_text(tag) for tag in self._run("restore", [], arguments, *messages)}

    def acknowledge(self, tags: Iterable[str]) -> int:
        """Delete messages; return how many were requeued because their tasks are not done."""
        return int(self._run("acknowledge", [], *tags))

    def return_unstarted(self, tags: Iterable[str]) -> int:
        """
        Requeue those messages whose task has not begun; return how many.

        Args:
            tags: The newest first, so that the oldest is taken next.
        """
        return int(self._run("return", [], "waiting", *tags))

    def return_all(self, tags: Iterable[str]) -> int:
        """
        Requeue messages of a worker that stops; return how many.

        Args:
            tags: The newest first, as of `return_unstarted`.
        """
        return int(self._run("return", [], "all", *tags))

    def return_lost(self, tags: Iterable[str]) -> int:
        """Requeue messages whose runner died, perhaps because of them; return how many."""
        return int(self._run("return", [], "dead", *tags))

    def begin(
        self, task_id: str, tag: str, queue: str = "", *, call: str = "", numbered: int = 0
    ) -> Begun:
        """
        Begin a task, unless another delivery of it runs, it has a result, or its role is paused.

        Args:
            queue: Its role's own; empty if that is unknown.
            call: A call that goes out at once, as of `call`; only for a task without a history.
            numbered: How many attempts have a number then.
        """
        keys = [task_key(task_id), result_key(task_id)]
        arguments = named(tag=tag, task_id=task_id, queue=queue, numbered=numbered)
        verdict, *more = self._run("begin", keys, arguments, call)
        if not more:
            return Begun(to_text(verdict))
        fence, words = more
        fields = {to_text(name): to_text(value) for name, value in batches(words, 2)}
        return Begun("run", to_text(fence), fields)

    def call(
        self,
        task_id: str,
        fence: str,
        *,
        number: int,
        call: str = "",
        numbered: int,
        rows: Sequence[str] = (),
        may_be_paid: bool = False,
        failed: str = "",
    ) -> int:
        """
        Record that a call goes out, or that it has ended.

        Args:
            number: The attempt's; several calls of a task may be out at once.
            call: The call's row, as it stays if its end is never reported; empty: the call ended.
            numbered: How many attempts have a number.
            rows: Rows of attempts for the ledger.
            may_be_paid: The call ended without an answer, and may have to be paid.
            failed: The attempt as JSON, for the next delivery if this worker is lost.

        Returns:
            How many calls of this task were repeated although their end is unknown; -1 if another
            delivery has begun: then the call must not go out.
        """
        arguments = named(fence=fence, number=number, may_be_paid=may_be_paid, numbered=numbered)
        keys = [task_key(task_id), result_key(task_id)]
        return int(self._run("call", keys, arguments, call, failed, *rows))

    def share(
        self, task_id: str, digest: str, *, fence: str, tag: str, wait_ms: int, keep_s: int
    ) -> tuple[str, str]:
        """
        Look up the answer to a call before the task makes it.

        Args:
            digest: Of everything that the answer depends on.
            wait_ms: How long the task may wait.
            keep_s: How long its role keeps an answer.

        Returns:
            cached, and the answer. Or one of these, and an empty text: own (the task makes the
            call, and equal ones wait for it), alone (it makes the call, and so do others), waits
            (its message was put away until there is an answer), lost (Redis has lost the message:
            restore it, then repeat this step) or gone (this delivery no longer has the task).
        """
        keys = [task_key(task_id), cache_key(digest), shared_call_key(digest), result_key(task_id)]
        arguments = named(
            fence=fence, tag=tag, task_id=task_id, digest=digest, wait_ms=wait_ms, keep_s=keep_s
        )
        verdict, *answer = self._run("share", keys, arguments)
        return to_text(verdict), "".join(map(to_text, answer))

    def requeue(  # noqa: PLR0913 - how the task waits, and what it keeps
        self,
        task_id: str,
        wait: Delay | Park,
        *,
        fence: str,
        tag: str,
        queue: str,
        attempts: str = "[]",
        repeats: int = 0,
        numbered: int = 0,
        enqueued_ms: int = 0,
        rows: Sequence[str] = (),
    ) -> int:
        """
        Requeue a task with its history.

        Args:
            wait: How it waits.
            queue: Its role's own.
            attempts: A JSON list, shape as in the result.
            repeats: How often it was repeated after an error of this program.
            numbered: How many attempts have a number.
            enqueued_ms: When it was enqueued; its message may not contain that.
            rows: Rows of attempts for the ledger.

        Returns:
            1; 2 if this parked the queue; 0 if another delivery has begun; -1 if Redis has lost the
            message and nothing was done: restore it, then repeat this step.
        """
        arguments = named(
            fence=fence, tag=tag, attempts=attempts, repeats=repeats, queue=queue,
            numbered=numbered, enqueued_ms=enqueued_ms, **_wait_arguments(wait),
        )  # fmt: skip
        keys = [task_key(task_id), result_key(task_id)]
        return int(self._run("requeue", keys, arguments, *rows))

    def open(self, queue: str, reason: str) -> bool:
        """Open a parked queue; return whether it was parked."""
        return bool(self._run("open", [], queue, reason))

    def schedule(self, tag: str, due_ms: int, message: str = "") -> bool:
        """
        Keep a message out of its list until it is due.

        Args:
            due_ms: In Redis' time.
            message: The message that goes into the list then; empty: the one that was taken.

        Returns:
            Whether the message was still taken.
        """
        return bool(self._run("schedule", [], tag, due_ms, message))

    def dead_letter(
        self,
        tag: str,
        fields: Mapping[str, str],
        *,
        task_id: str = "",
        meta: str = "",
        expires_s: int = 0,
    ) -> bool:
        """
        Make a taken message a dead letter, because it cannot become a task.

        Args:
            fields: The dead letter's.
            task_id: The task that the message names; empty if it names no usable one.
            meta: A result for that task in Celery's format; written unless the task has begun.
            expires_s: How long Redis keeps that result.

        Returns:
            Whether the message was still taken.
        """
        words = [word for pair in fields.items() for word in pair]
        arguments = named(tag=tag, task_id=task_id, expires_s=expires_s, fields=words)
        return bool(self._run("dead_letter", [], arguments, meta))

    def heartbeat(
        self,
        worker: str,
        description: str,
        queues: Iterable[str],
        *,
        version: str = "",
        roles: str = "",
    ) -> str:
        """
        Publish that a worker is alive.

        Args:
            worker: The beginning of its tags.
            description: The worker's description, as JSON.
            queues: The queues that it consumes.
            version: Of its roles file.
            roles: The roles that it serves, as JSON (`breakwater/roles.py`); empty: publish none.

        Returns:
            The user who drains it, as JSON; empty if it is not drained.
        """
        arguments = named(
            worker=worker, description=description, lease_ms=LEASE_MS, version=version,
            roles=roles, queues=list(queues),
        )  # fmt: skip
        reply = self._run("heartbeat", [], arguments)
        return to_text(reply or "")

    def forget_worker(self, worker: str) -> None:
        """Remove a worker that ends."""
        pipe = self.client.pipeline(transaction=True)
        pipe.hdel(redis_keys.WORKERS, worker)
        pipe.hdel(redis_keys.DRAINING, worker)
        pipe.hdel(redis_keys.ISOLATED_WORKERS, worker)
        pipe.zrem(redis_keys.WORKERS_UNTIL, worker)
        pipe.execute()


def _wait_arguments(wait: Delay | Park) -> dict[str, int | str]:
    """Return the arguments of `requeue.lua` that say how a task waits."""
    if isinstance(wait, Park):
        return {
            "delay_ms": 0, "park_ms": wait.ms,
            "reason": wait.reason, "trial_count": wait.trial_count,
        }  # fmt: skip
    return {"delay_ms": wait.ms, "park_ms": 0, "reason": "", "trial_count": 1}

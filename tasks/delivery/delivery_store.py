"""
The delivery in Redis: every step one script, one round trip.

The keys are explained at the head of `breakwater/messaging/scripts/delivery.lua`. Scripts read the
time from Redis alone. Every `RedisError` is raised unchanged.

A worker lets go of a message by one of these verbs:

    acknowledge        the task is settled, or waits elsewhere: deleted; if it is not, requeued
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
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, NamedTuple

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
"""How long a silent worker is believed to live; its messages go back after this."""
TRIAL_WINDOW_MS = 5_000
"""How long the first few of a queue that was parked may take to show whether it is over."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""A larger message is a dead letter; a prompt of a million tokens has 4 MB."""
MAX_LOST, MAX_ALONE = 5, 3
"""
A task is given up when so many workers were lost with it in their hands, and so many of them had
nothing else; as in `scripts/delivery.lua`.
"""
ALONE = "!"
"""How the tag of a task ends that a worker runs alone."""

SCRIPTS = (
    "take", "tend", "return", "begin", "call", "requeue", "open", "schedule", "dead_letter",
    "revive", "acknowledge", "drop", "pause", "resume", "drain", "heartbeat", "look", "share",
    "stream", "leave_to_others", "restore",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Begun:
    """
    What came of beginning a task.

    `verdict` is run, settled (it has a result), owned (another delivery runs it), gone (the message
    was put back meanwhile), paused (it is now) or known (its call must not go out before what there
    is to know of it is read); `fence` and `task` (the fields of `task:ID`) are those of run.
    """

    verdict: str
    fence: str = ""
    task: Mapping[str, str] = field(default_factory=dict)


class Tended(NamedTuple):
    """
    What a renewal found.

    `lost` are the tags that are not the caller's any more, `parked` the names of the parked queues.
    `data` names the data in Redis: another name than before means that the old data is lost.
    `given_up` are the tag and task id of each delivery that has cost several workers their lives
    before it began; the caller buries it.
    """

    lost: list[str]
    parked: list[str]
    data: str
    given_up: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    A message in a worker's hands, as Redis had it.

    `task_id` and `fence` are empty where they are not known, `message` where Redis still has it.
    """

    tag: str
    task_id: str = ""
    fence: str = ""
    has_begun: bool = False
    list: str = ""
    message: bytes = b""


@functools.cache  # 240 kB
def packaged() -> Mapping[str, str]:
    """Read the scripts of a worker and those of the client, each whole."""
    return {**task_store.packaged(), **task_store.read_scripts("tasks.delivery", SCRIPTS)}


class DeliveryStore(TaskStore):
    """
    Run the scripts.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
        sources: The scripts by name; tests put a clock of their own into them.
    """

    def __init__(self, client: redis.Redis, sources: Mapping[str, str] | None = None) -> None:
        super().__init__(client, sources or packaged())

    def take_command(
        self, queues: Sequence[str], most: int, tag: str, held: int = 0, has: str = ""
    ) -> tuple[Any, ...]:
        """
        Return the words of a take, for a connection that is read when its answer is there.

        Args:
            queues: In the order in which each may give one.
            tag: Of its own for every take; the messages' tags begin with it.
            held: How many deliveries the worker has in hand.
            has: Digest of the tasks that this worker has; empty: no message is passed over.
        """
        lists = [list_of(queue, step) for step in PRIORITIES for queue in queues]
        arguments = named(
            prefix=tag, max=most, lease_ms=LEASE_MS, max_bytes=MAX_MESSAGE_BYTES,
            queues=len(queues), trial_ms=TRIAL_WINDOW_MS, held=held, tasks=has,
        )  # fmt: skip
        return len(lists), *lists, arguments

    def leave_to_others(self, tag: str, has: str, for_ms: int, name: str) -> bool:
        """
        Put a taken message back, to be passed over by workers with the same tasks.

        Args:
            has: As in `take_command`.
            for_ms: How long.
            name: Of the task that this worker does not have.
        """
        return bool(self._run("leave_to_others", [], tag, has, for_ms, name))

    def take(
        self, queues: Sequence[str], most: int, tag: str, held: int = 0
    ) -> list[tuple[str, str, bytes]]:
        """Take messages; returns the tag, the list and the message of each."""
        command = self.take_command(queues, most, tag, held)
        number = command[0]
        reply = self._run("take", command[1 : number + 1], *command[number + 1 :])[:-1]
        return [
            (to_text(tag), to_text(list_), message) for tag, list_, message in batches(reply, 3)
        ]

    def tend(self, tags: Iterable[str]) -> Tended:
        """Renew these deliveries, and put back those whose workers are silent."""
        lost, parked, data, given_up = (
            self._run("tend", [], LEASE_MS, token_hex(8), *tags)
        )  # fmt: skip
        words = [to_text(word) for word in given_up]
        return Tended(
            [to_text(tag) for tag in lost],
            [to_text(name) for name in parked],
            to_text(data),
            list(zip(words[::2], words[1::2], strict=True)),
        )

    def restore(self, deliveries: Iterable[Delivery]) -> set[str]:
        """
        Take messages again that Redis has lost with its data, unless somebody else has begun them.

        Returns:
            The tags that are taken.
        """
        several = list(deliveries)
        fields = [
            {
                "tag": one.tag, "task_id": one.task_id, "fence": one.fence,
                "has_begun": one.has_begun, "list": one.list,
            }
            for one in several
        ]  # fmt: skip
        arguments = named(lease_ms=LEASE_MS, deliveries=fields)
        tags = self._run("restore", [], arguments, *(one.message for one in several))
        return {to_text(tag) for tag in tags}

    def acknowledge(self, tags: Iterable[str]) -> int:
        """Forget messages that are done with; return how many were not, and went back."""
        return int(self._run("acknowledge", [], *tags))

    def return_unstarted(self, tags: Iterable[str]) -> int:
        """
        Requeue those messages whose task has not begun; return how many.

        Args:
            tags: The newest first, so that the oldest is the next to be taken.
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
        """Requeue messages whose runner has died, perhaps because of them; return how many."""
        return int(self._run("return", [], "dead", *tags))

    def begin(
        self, task_id: str, tag: str, queue: str = "", *, call: str = "", numbered: int = 0
    ) -> Begun:
        """
        Begin a task, unless another delivery of it runs, it has a result, or its role is paused.

        Args:
            queue: Its role's own; empty if it is not known.
            call: A call that goes out at once, as in `call`; only of a task nothing is known of.
            numbered: How many attempts have a number then.
        """
        keys = [task_key(task_id), result_key(task_id)]
        arguments = named(tag=tag, task_id=task_id, queue=queue, call=call, numbered=numbered)
        verdict, *more = self._run("begin", keys, arguments)
        if not more:
            return Begun(to_text(verdict))
        fields = [to_text(field) for field in more[1]]
        return Begun("run", to_text(more[0]), dict(zip(fields[::2], fields[1::2], strict=True)))

    def call(
        self,
        task_id: str,
        fence: str,
        *,
        number: int,
        call: str = "",
        numbered: int,
        rows: Sequence[str] = (),
        paid: bool = False,
        failed: str = "",
    ) -> int:
        """
        Note that a call goes out, or that it has come to an end.

        Args:
            number: The attempt's; several calls of a task may be out at once.
            call: Its row, should nobody hear its end; empty when it has ended.
            numbered: How many attempts have a number.
            rows: Of attempts, for the ledger.
            paid: It ended without an answer, and may have to be paid.
            failed: The attempt as JSON, for whoever runs the task if this worker is lost.

        Returns:
            How many calls of this task were repeated without need to know their end; -1 if
            another delivery has begun: then the call must not go out.
        """
        arguments = named(
            fence=fence,
            number=number,
            call=call,
            may_be_paid=paid,
            numbered=numbered,
            failed=failed,
        )
        return int(self._run("call", [task_key(task_id), result_key(task_id)], arguments, *rows))

    def share(
        self, task_id: str, digest: str, *, fence: str, tag: str, wait_ms: int, keep_s: int
    ) -> tuple[str, str]:
        """
        Ask for the answer to a call, before making it.

        Args:
            digest: Of all that the answer depends on.
            wait_ms: How long the task has to wait at most.
            keep_s: How long its role keeps an answer.

        Returns:
            cached, and the answer; or, with nothing, own (it makes the call, and the same ones wait
            for it), alone (it makes the call; so do others), waits (its message was put away until
            there is an answer), lost (Redis has lost the message: restore it, ask again) or gone
            (this delivery has the task no more).
        """
        keys = [
            task_key(task_id), cache_key(digest), shared_call_key(digest), result_key(task_id)
        ]  # fmt: skip
        arguments = named(
            fence=fence, tag=tag, task_id=task_id, digest=digest, wait_ms=wait_ms, keep_s=keep_s
        )
        verdict, *answer = self._run("share", keys, arguments)
        return to_text(verdict), to_text(answer[0]) if answer else ""

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
        Put a task back.

        Args:
            wait: How it waits.
            queue: Its role's own.
            attempts: A JSON list, shape as in the result.
            numbered: How many attempts have a number.
            enqueued_ms: When it was enqueued; its message may not contain that.
            rows: Rows of attempts for the ledger.

        Returns:
            1; 2 if this parked the queue; 0 if another delivery has begun; -1 if Redis has lost the
            message and nothing was done: restore it, then repeat this step.
        """
        delay_ms = wait.ms if isinstance(wait, Delay) else 0
        park = wait if isinstance(wait, Park) else Park(0)
        arguments = named(
            fence=fence, tag=tag, attempts=attempts, repeats=repeats, queue=queue,
            delay_ms=delay_ms, park_ms=park.ms, reason=park.reason, trial_count=park.trial_count,
            numbered=numbered, enqueued_ms=enqueued_ms,
        )  # fmt: skip
        return int(self._run("requeue", [task_key(task_id), result_key(task_id)], arguments, *rows))

    def open(self, queue: str, reason: str) -> bool:
        """Let a parked queue be consumed again; tell whether it was parked."""
        return bool(self._run("open", [], queue, reason))

    def schedule(self, tag: str, due_ms: int, message: str = "") -> bool:
        """
        Keep a message out of its list until it is due.

        Args:
            due_ms: In Redis' time.
            message: What is put into the list then; empty: what was taken.
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
        Make a taken message, of which nobody can make a task, a dead letter.

        Args:
            fields: The dead letter's.
            task_id: The task that it names; empty if it names none that could be used.
            meta: A result for that task, in Celery's format; written unless it was begun.
        """
        words = [word for pair in fields.items() for word in pair]
        arguments = named(tag=tag, task_id=task_id, expires_s=expires_s, fields=words)
        return bool(self._run("dead_letter", [], arguments, meta))

    def heartbeat(
        self, worker: str, about: str, queues: Iterable[str], *, version: str = "", roles: str = ""
    ) -> str:
        """
        Say that a worker is there.

        Args:
            worker: What its tags begin with.
            about: What it says of itself, as JSON.
            queues: That it consumes.
            version: Of its roles file.
            roles: That it serves, as JSON (`breakwater/roles.py`); empty: none are published.

        Returns:
            Who drains it, as JSON; empty if nobody does.
        """
        arguments = named(
            worker=worker, description=about, lease_ms=LEASE_MS, version=version, roles=roles,
            queues=list(queues),
        )  # fmt: skip
        told = self._run("heartbeat", [], arguments)
        return to_text(told) if told else ""

    def forget_worker(self, worker: str) -> None:
        """Forget a worker that ends."""
        pipe = self.client.pipeline(transaction=True)
        pipe.hdel(redis_keys.WORKERS, worker)
        pipe.hdel(redis_keys.DRAINING, worker)
        pipe.hdel(redis_keys.ISOLATED_WORKERS, worker)
        pipe.zrem(redis_keys.WORKERS_UNTIL, worker)
        pipe.execute()

"""
The messages that a worker holds, and the thread that renews their leases.

Every two seconds one command renews all leases at once; the same command requeues the messages of
dead workers. Acknowledgements are sent in batches: one that is lost with the process costs nothing,
since a settled task does not run again.
"""

import itertools
import json
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import structlog
from redis.exceptions import RedisError

from breakwater.errors import WorkerLost
from breakwater.redis.batches import batches
from breakwater.redis.connection import explain, is_transient
from tasks.delivery import result_spool
from tasks.delivery.delivery_store import MAX_ALONE, MAX_LOST, Delivery, DeliveryStore
from tasks.delivery.faults import Rest
from tasks.delivery.foreign_key_check import ForeignKeyCheck

RENEWAL_INTERVAL_S = 2.0
HEARTBEAT_CYCLES = 2
"""Heartbeats are published on every second renewal cycle."""
ACK_DELAY_S = 0.02
"""Acknowledgements within this time are sent together."""
BATCH_SIZE = 500
"""Tags of one script at most, so that no script blocks Redis for long."""
BATCH_BYTES = 1024 * 1024
"""Bytes of messages of one script at most, for the same reason."""

P = ParamSpec("P")
T = TypeVar("T")

About = Callable[[], tuple[Mapping[str, object], Iterable[str], str]]
"""Returns a worker's description of itself, the queues that it consumes, and its roles."""

_log = structlog.get_logger()


class RunningTask(Protocol):
    """A task that a thread of this process runs."""

    task_id: str
    fence: str
    """Empty until the task has begun."""


@dataclass(slots=True)
class HeldMessage:
    """A message that this process holds, as Redis had it."""

    queue: str
    list: str = ""
    message: bytes = b""
    task_id: str = ""
    data: str = ""
    """The name of Redis' data at that time; empty: it was not known yet."""
    is_accepted: bool = False
    """The pool runs its task; a prefork's child does not share more than that."""
    is_returning: bool = False
    """It will be requeued unless its task has begun."""


class DeliveryKeeper:
    """
    The deliveries that one process holds.

    Args:
        store: Runs the scripts.
        abort: Aborts the call for which a thread waits; returns whether there was one.
        watch: Waits up to this many seconds until one of these parked queues can be opened, and
            opens it; called only while queues are parked.
    """

    def __init__(
        self,
        store: DeliveryStore,
        abort: Callable[[int], bool] = lambda _: False,
        watch: Callable[[list[str], float], object] | None = None,
    ) -> None:
        self.store = store
        self._abort = abort
        self._watch = watch
        self._worker = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._held: dict[str, HeldMessage] = {}
        self._threads: dict[str, int] = {}  # tag -> the thread that runs its task
        self._running: dict[str, RunningTask] = {}
        self._data = ""  # the name of Redis' data in the last cycle
        self._was_away = False  # since the last cycle
        self._lock = threading.Lock()
        self._to_acknowledge: deque[str] = deque()
        self._to_return: deque[str] = deque()
        self._refused: list[str] = []  # of one take, the oldest first
        self._is_receiving = False
        self.rest = Rest()
        self.foreign_keys = ForeignKeyCheck()
        self._wake = threading.Event()
        self._room = threading.Event()
        self._about: About = lambda: ({}, (), "")
        self._drain: Callable[[str], object] = lambda _: None
        self._thread: threading.Thread | None = None
        self.closing = self.stopped = self._away = self._has_news = False
        self.is_ready = False
        self.drained_by = ""

    def new_tag(self) -> str:
        """Return a unique beginning of tags."""
        return f"{self._worker}.{next(self._numbers)}"

    def start(self, about: About, drain: Callable[[str], object]) -> None:
        """
        Start the thread; an idle worker also requeues the messages of dead ones.

        Args:
            about: Returns what `DeliveryStore.heartbeat` publishes.
            drain: Called once, with the name of the user who drains this worker.
        """
        self._about, self._drain = about, drain
        self._replay()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """How many deliveries this process holds."""
        return len(self._held)

    def running_by_queue(self) -> Counter[str]:
        """Count the deliveries by the queue that they were taken from."""
        return Counter([held.queue for held in list(self._held.values())])

    @property
    def is_away(self) -> bool:
        """Whether the last command to Redis failed."""
        return self._away

    def close(self) -> None:
        """Take no more messages."""
        self.closing = True

    def return_waiting(self) -> None:
        """Requeue all that has not begun, the newest first, so that the oldest is taken next."""
        for tag in reversed(list(self._held)):
            self.return_unstarted(tag)

    def publish_now(self) -> None:
        """Publish the worker's description at once, because it has changed."""
        self._has_news = True
        self._wake.set()

    def wait_for_room(self, within_s: float) -> None:
        """Wait until a delivery ends, at most this long."""
        self._room.clear()
        self._room.wait(within_s)

    def hold(
        self, tag: str, queue: str, list_: str = "", message: bytes = b"", task_id: str = ""
    ) -> None:
        """
        Hold a delivery from now on.

        Args:
            queue: The one that it was taken from.
            list_, message: As Redis had them, in case Redis loses them.
            task_id: Empty if the message does not contain it.
        """
        self._held[tag] = HeldMessage(queue, list_, message, task_id, self._data)

    def accepted(self, tag: str) -> None:
        """Record that the pool runs this delivery's task."""
        if held := self._held.get(tag):
            held.is_accepted = True

    def restore(self, tag: str) -> bool:
        """
        Take a message again that Redis does not have any more; return whether it is taken now.

        If Redis did not lose the message but another worker requeued it while this one was silent,
        there are two copies now. The task is paid for once all the same. Without the copy the task
        might be lost.

        Raises:
            RedisError: Redis is unavailable again.
        """
        held = self._held.get(tag)
        if held is None or not held.message or self.stopped:
            return False
        if held.is_returning and self.store.tend([]).data == held.data:
            return False  # this worker has requeued it
        return tag in self.store.restore([self._delivery(tag, held)])

    def holds(self, tag: str) -> bool:
        """Return whether this process has the message; a prefork's parent has its children's."""
        return tag in self._held

    def acknowledge(self, tag: str) -> None:
        """End a delivery that is settled, or whose task waits elsewhere."""
        self._held.pop(tag, None)
        self._to_acknowledge.append(tag)
        self._wake.set()
        self._room.set()

    def return_unstarted(self, tag: str) -> None:
        """Requeue a delivery unless its task has begun; of several, the newest first."""
        if held := self._held.get(tag):
            held.is_returning = True
        self._to_return.append(tag)
        self._wake.set()

    def refuse(self, tag: str) -> None:
        """Requeue a delivery that cannot run now, in its place among those of its take."""
        self._refused.append(tag)
        if not self._is_receiving:
            self._return_refused()

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Receive the messages of one take."""
        self._is_receiving = True
        try:
            yield
        finally:
            self._is_receiving = False
            self._return_refused()

    def _return_refused(self) -> None:
        refused, self._refused = self._refused, []
        for tag in reversed(refused):
            self.return_unstarted(tag)

    def return_lost(self, tag: str) -> None:
        """Requeue a delivery, begun or not, because its runner is dead."""
        self._held.pop(tag, None)
        self._room.set()
        self._try(self.store.return_lost, [tag])

    def task_started(self, tag: str, task: RunningTask) -> None:
        """Record that the calling thread runs this delivery's task."""
        with self._lock:
            self._threads[tag] = threading.get_ident()
            self._running[tag] = task

    def task_finished(self, tag: str) -> None:
        """Record that no thread runs this delivery's task any more."""
        with self._lock:
            self._threads.pop(tag, None)
            self._running.pop(tag, None)

    def stop(self) -> None:
        """Requeue all deliveries and end; their tasks are cut off here, and run elsewhere."""
        if self._held and not self.stopped and not self._away:
            self._tend()  # Redis may have lost the messages
        self.closing = self.stopped = True
        self._wake.set()
        self._flush()
        held = list(reversed(self._held))
        self._held.clear()
        for tags in batches(held, BATCH_SIZE):
            self._try(self.store.return_all, tags)
        self._try(self.store.forget_worker, self._worker)

    def _run(self) -> None:
        for cycle in itertools.count():
            if self.stopped:
                return
            ends_at = time.monotonic() + RENEWAL_INTERVAL_S
            parked = self._tend()
            if self.foreign_keys.is_due:
                self._try(self._check_foreign_keys)
            if cycle % HEARTBEAT_CYCLES == 0:
                self._try(self._publish)
            if not self.is_ready:
                self._replay()
            self._serve_until(ends_at, parked)

    def _serve_until(self, ends_at: float, parked: list[str]) -> None:
        """Send acknowledgements, watch parked queues and publish news until the next cycle."""
        while (left_s := ends_at - time.monotonic()) > 0 and not self.stopped:
            if parked and self._watch:
                self._try(self._watch, parked, left_s)
            elif self._wake.wait(left_s):
                self._wake.clear()
                time.sleep(ACK_DELAY_S)
            self._flush()
            if self._has_news:
                self._has_news = False
                self._try(self._publish)

    def _replay(self) -> None:
        """Settle the results in the spool before any take: a message may belong to one of them."""
        number = self._try(result_spool.replay, self.store.settle)
        if number is None and self._away:
            return
        self.is_ready = True
        if number:
            _log.warning("spool.settled", results=number)

    def _tend(self) -> list[str]:
        """Renew all leases; return the names of the parked queues."""
        parked: list[str] = []
        for tags in list(batches(list(self._held), BATCH_SIZE)) or [[]]:
            if (tended := self._try(self.store.tend, tags)) is None:
                self._was_away = True
                return parked
            parked = tended.parked
            is_other_data = self._data not in {"", tended.data}
            if is_other_data:
                _log.error("delivery.data_lost", what="Redis has other data than before")
            self._data = tended.data
            for tag, task_id in tended.given_up:
                self._try(self._give_up, tag, task_id)
            if (restored := self._restore_lost(tended.lost, tags, is_other_data)) is None:
                return parked
            for tag in tended.lost:
                if tag not in restored:
                    self._end_lost(tag)
        self._was_away = False
        return parked

    def _restore_lost(
        self, lost: list[str], tags: list[str], is_other_data: bool
    ) -> set[str] | None:
        """
        Take messages again that Redis lost with its data.

        A task that has begun in this process has a fence, and Redis compares it with its own. All
        other deliveries, such as those of a prefork's children, show only a new name of the data.

        Returns:
            The tags that are taken now; None: Redis is unavailable, so the others may not be lost.
        """
        restored: set[str] = set()
        if self._was_away and not is_other_data:  # an older replica may have a part of the data
            lost = [*lost, *(tag for tag in tags if tag in self._running and tag not in lost)]
        deliveries = [
            self._delivery(tag, held)
            for tag in lost
            if (held := self._held.get(tag)) and (is_other_data or self._fence(tag))
        ]
        for some in _by_bytes(deliveries):
            if (taken := self._try(self.store.restore, some)) is None:
                self._was_away = True
                return None
            restored |= taken
        return restored

    def _give_up(self, tag: str, task_id: str) -> None:
        """Make a message a dead letter that killed each worker before its task began."""
        from tasks.delivery.envelope import dead_letter  # noqa: PLC0415 - it needs Celery's app

        why = (
            f"{MAX_LOST} workers or more were lost with this task before they could begin it, "
            f"{MAX_ALONE} of them with nothing else in hand; look at its message before a retry"
        )
        dead_letter(self.store, tag, WorkerLost(why), task_id)

    def _delivery(self, tag: str, held: HeldMessage) -> Delivery:
        task, fence = self._running.get(tag), self._fence(tag)
        if task:
            return Delivery(tag, task.task_id, fence, bool(fence), held.list, held.message)
        return Delivery(tag, held.task_id, "", held.is_accepted, held.list, held.message)

    def _fence(self, tag: str) -> str:
        task = self._running.get(tag)
        return task.fence if task else ""

    def _check_foreign_keys(self) -> None:
        _, queues, _ = self._about()
        self.foreign_keys.look(self.store.client, queues)

    def _publish(self) -> None:
        """Publish a heartbeat; the reply may drain this worker."""
        if self.stopped:
            return  # the worker was removed already
        about, queues, roles = self._about()
        version = str(about.get("version", ""))
        drained = self.store.heartbeat(
            self._worker, json.dumps(about), queues, version=version, roles=roles
        )
        if drained and not self.drained_by:
            self.drained_by = json.loads(drained)["who"]
            self._drain(self.drained_by)

    def _end_lost(self, tag: str) -> None:
        """Abort the call of a task that was settled without it, or that another worker runs."""
        task = self._running.get(tag)
        if task and not task.fence:
            return  # the reply to its begin will be the same
        held = self._held.pop(tag, None)
        with self._lock:
            thread_id = self._threads.get(tag)
            aborted = thread_id is not None and self._abort(thread_id)
        if not aborted:
            return
        if held and held.task_id and self._try(self.store.is_settled, held.task_id):
            # This is the normal way of a cancelled task.
            _log.info("delivery.settled", tag=tag, task_id=held.task_id)
        else:
            _log.warning("delivery.lost", tag=tag)

    def _flush(self) -> None:
        """Send the acknowledgements that are due, and requeue what is to return."""
        for waiting, send in (
            (self._to_acknowledge, self.store.acknowledge),
            (self._to_return, self.store.return_unstarted),
        ):
            due = [waiting.popleft() for _ in range(len(waiting))]
            for tags in batches(due, BATCH_SIZE):
                if self._try(send, tags) is None:
                    waiting.extend(tags)

    def _try(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Run a step; None: it failed, and the next cycle repeats it."""
        try:
            result = step(*args, **kwargs)
            self._away = False
            return result
        except RedisError as error:
            if self.stopped and threading.current_thread() is self._thread:
                return None  # this process has closed the connection under the keeper's command
            if not is_transient(error):
                self.foreign_keys.refused(error)
            elif not self._away:
                _log.warning("delivery.redis_away", why=explain(error)[0])
            self._away = True
        except Exception:  # noqa: BLE001 - whatever it is
            # If this thread ended, other workers would take this one for dead, with all it holds.
            _log.exception("delivery.fault")
        return None


def _by_bytes(deliveries: list[Delivery]) -> Iterator[list[Delivery]]:
    """Split deliveries so that no script gets too many, or too large ones."""
    some: list[Delivery] = []
    size = 0
    for delivery in deliveries:
        is_full = size + len(delivery.message) > BATCH_BYTES or len(some) >= BATCH_SIZE
        if some and is_full:
            yield some
            some, size = [], 0
        some.append(delivery)
        size += len(delivery.message)
    if some:
        yield some

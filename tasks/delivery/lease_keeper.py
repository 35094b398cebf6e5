"""
What a worker holds, and the thread that keeps it.

Every two seconds one command says for all deliveries at once that their worker lives; the same
command puts back what other workers left behind. Acknowledgements go out in batches: one that is
lost with the process costs nothing, since a settled task is not run again.
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
from typing import Any, Protocol, TypeVar

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
"""Only so many looks after deliveries apart a worker tells of itself."""
BATCH_S = 0.02
"""Acknowledgements that come within this go out together."""
BATCH_SIZE = 500
"""Tags a script is given at most, so that none keeps Redis busy for long."""

BATCH_BYTES = 1024 * 1024
"""The same for messages that it is given."""

T = TypeVar("T")

About = Callable[[], tuple[Mapping[str, object], Iterable[str], str]]
"""Returns a worker's description of itself, the queues that it consumes, and its roles."""

_log = structlog.get_logger()


class RunningTask(Protocol):
    """A task that a thread of this process runs."""

    task_id: str
    fence: str
    """Empty until it has begun."""


@dataclass(slots=True)
class HeldMessage:
    """A message that this process holds, as Redis had it."""

    queue: str
    list: str = ""
    message: bytes = b""
    task_id: str = ""
    data: str = ""
    """What Redis' data was called then; empty: not known yet."""
    is_accepted: bool = False
    """The pool runs its task; a prefork's child does not share what it knows of it."""
    is_dropped: bool = False
    """It is to go back, unless its task has begun."""


class DeliveryKeeper:
    """
    The deliveries in one process' hands.

    Args:
        store: The keys.
        abort: Ends the call that a thread is waiting for.
        watch: Waits at most so many seconds for a sign that these parked queues may be opened, and
            opens them; called only while some are parked.
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
        self._data = ""  # what Redis' data was called at the last look
        self._was_away = False  # since the last look
        self._lock = threading.Lock()
        self._done: deque[str] = deque()
        self._dropped: deque[str] = deque()
        self._refused: list[str] = []  # of one take, the oldest first
        self._is_receiving = False
        self.rest = Rest()
        self.foreign_keys = ForeignKeyCheck()
        self._wake = threading.Event()
        self._room = threading.Event()
        self._about: About = lambda: ({}, (), "")
        self._drain: Callable[[str], object] = lambda _: None
        self.closing = self.stopped = self._away = self._news = False
        self.is_ready = False
        self.drained_by = ""

    def new_tag(self) -> str:
        """Return the beginning of tags that nobody else has."""
        return f"{self._worker}.{next(self._numbers)}"

    def start(
        self,
        about: About,
        drain: Callable[[str], object],
    ) -> None:
        """
        Start the thread; also an idle worker puts back what others have left.

        Args:
            about: What the worker says of itself, the queues that it consumes, and the roles that
                it serves, as `DeliveryStore.present` takes them.
            drain: Called once, with the name of who wants the worker to end when it has finished.
        """
        self._about, self._drain = about, drain
        self._replay()
        threading.Thread(target=self._run, name="keeper", daemon=True).start()

    @property
    def count(self) -> int:
        """How many deliveries are held."""
        return len(self._held)

    def running_by_queue(self) -> Counter[str]:
        """Count what is held, by the queue it was found in."""
        return Counter([held.queue for held in list(self._held.values())])

    @property
    def is_away(self) -> bool:
        """Whether Redis did not answer when it was asked last."""
        return self._away

    def close(self) -> None:
        """Take nothing more."""
        self.closing = True

    def drop_waiting(self) -> None:
        """Give back what has not begun, the newest first, so that the oldest is the next."""
        for tag in reversed(list(self._held)):
            self.drop(tag)

    def publish_now(self) -> None:
        """Tell at once what the worker says of itself: it has changed."""
        self._news = True
        self._wake.set()

    def wait_for_room(self, within_s: float) -> None:
        """Wait until a delivery is let go of, or so many seconds have passed."""
        self._room.clear()
        self._room.wait(within_s)

    def hold(
        self, tag: str, queue: str, list_: str = "", message: bytes = b"", task_id: str = ""
    ) -> None:
        """
        Keep a delivery from now on.

        Args:
            queue: The one it was found in.
            list_, message: As Redis had them, should it lose them.
            task_id: Empty if the message does not say.
        """
        self._held[tag] = HeldMessage(queue, list_, message, task_id, self._data)

    def accepted(self, tag: str) -> None:
        """Note that the pool runs this delivery's task."""
        if held := self._held.get(tag):
            held.is_accepted = True

    def restore(self, tag: str) -> bool:
        """
        Take a message again that Redis does not have any more; return whether it is taken now.

        If it was not lost with Redis' data but has gone back when this worker was silent, there are
        two of it now. The task is paid for once all the same; without this one it might be lost.

        Raises:
            RedisError: Redis is away again.
        """
        if (held := self._held.get(tag)) is None or not held.message or self.stopped:
            return False
        if held.is_dropped and self.store.tend([]).data == held.data:
            return False  # it has gone back by this worker's own doing
        return tag in self.store.restore([self._delivery(tag, held)])

    def holds(self, tag: str) -> bool:
        """Return whether this process has the message; a prefork's parent has its children's."""
        return tag in self._held

    def done(self, tag: str) -> None:
        """Let go of a delivery that is settled, or waits elsewhere."""
        self._held.pop(tag, None)
        self._done.append(tag)
        self._wake.set()
        self._room.set()

    def drop(self, tag: str) -> None:
        """Give a delivery back, unless its task has begun; of several, the newest first."""
        if held := self._held.get(tag):
            held.is_dropped = True
        self._dropped.append(tag)
        self._wake.set()

    def refuse(self, tag: str) -> None:
        """Give a delivery back that cannot be run now, in its place among those of its take."""
        self._refused.append(tag)
        if not self._is_receiving:
            self._drop_refused()

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Receive what a take has brought."""
        self._is_receiving = True
        try:
            yield
        finally:
            self._is_receiving = False
            self._drop_refused()

    def _drop_refused(self) -> None:
        refused, self._refused = self._refused, []
        for tag in reversed(refused):
            self.drop(tag)

    def give_back(self, tag: str) -> None:
        """Give a delivery back, begun or not: whoever ran it is dead."""
        self._held.pop(tag, None)
        self._room.set()
        self._try(self.store.return_lost, [tag])

    def task_started(self, tag: str, runner: RunningTask) -> None:
        """Note that the calling thread runs this delivery's task."""
        with self._lock:
            self._threads[tag] = threading.get_ident()
            self._running[tag] = runner

    def task_finished(self, tag: str) -> None:
        """Note that it does not any more."""
        with self._lock:
            self._threads.pop(tag, None)
            self._running.pop(tag, None)

    def stop(self) -> None:
        """Give back all that is held and end; tasks that run are cut off, and run elsewhere."""
        if self._held and not self.stopped and not self._away:
            self._tend()  # Redis may have lost what is to go back
        self.closing = self.stopped = True
        self._wake.set()
        self._flush()
        held = list(reversed(self._held))
        self._held.clear()
        for tags in batches(held, BATCH_SIZE):
            self._try(self.store.return_all, tags)
        self._try(self.store.forget_worker, self._worker)

    def _run(self) -> None:
        for turn in itertools.count():
            if self.stopped:
                return
            ends_at = time.monotonic() + RENEWAL_INTERVAL_S
            parked = self._tend()
            if self.foreign_keys.is_due:
                self._try(self._look_for_foreign_keys)
            if turn % HEARTBEAT_CYCLES == 0:
                self._try(self._say)
            if not self.is_ready:
                self._replay()
            while (left_s := ends_at - time.monotonic()) > 0 and not self.stopped:
                if parked and self._watch:
                    self._try(self._watch, parked, left_s)
                elif self._wake.wait(left_s):
                    self._wake.clear()
                    time.sleep(BATCH_S)
                self._flush()
                if self._news:
                    self._news = False
                    self._try(self._say)

    def _replay(self) -> None:
        """Settle what is in the spool; nothing is taken before, since it may be a task of these."""
        number = self._try(result_spool.replay, self.store.settle)
        if number is None and self._away:
            return
        self.is_ready = True
        if number:
            _log.warning("spool.settled", results=number)

    def _tend(self) -> list[str]:
        parked: list[str] = []
        for tags in list(batches(list(self._held), BATCH_SIZE)) or [[]]:
            if (found := self._try(self.store.tend, tags)) is None:
                self._was_away = True
                return parked
            parked = found.parked
            is_other = self._data not in {"", found.data}
            if is_other:
                _log.error("delivery.data_lost", what="Redis has other data than before")
            self._data = found.data
            for tag, task_id in found.given_up:
                self._try(self._give_up, tag, task_id)
            if (kept := self._restored(found.lost, tags, is_other)) is None:
                return parked
            for tag in found.lost:
                if tag not in kept:
                    self._lost(tag)
        self._was_away = False
        return parked

    def _restored(self, lost: list[str], tags: list[str], is_other: bool) -> set[str] | None:
        """
        Take again what Redis has lost with its data; None: it is away, and nobody knows.

        A task that has begun here has a fence, by which Redis sees whether it has lost it. Of all
        else, such as what a prefork's children run, only another name of the data tells.
        """
        kept: set[str] = set()
        if self._was_away and not is_other:  # of an older replica's data some may be there
            lost = [*lost, *(tag for tag in tags if tag in self._running and tag not in lost)]
        deliveries = [
            self._delivery(tag, held)
            for tag in lost
            if (held := self._held.get(tag)) and (is_other or self._fence(tag))
        ]
        for some in _by_bytes(deliveries):
            if (taken := self._try(self.store.restore, some)) is None:
                self._was_away = True
                return None
            kept |= taken
        return kept

    def _give_up(self, tag: str, task_id: str) -> None:
        """Bury what costs each worker its life before it begins; no worker reads it again."""
        from tasks.delivery.envelope import dead_letter  # noqa: PLC0415 - it needs Celery's app

        why = (
            f"{MAX_LOST} workers or more were lost with this task before they could begin it, "
            f"{MAX_ALONE} of them with nothing else in hand; look at its message before a retry"
        )
        dead_letter(self.store, tag, WorkerLost(why), task_id)

    def _delivery(self, tag: str, held: HeldMessage) -> Delivery:
        runner, fence = self._running.get(tag), self._fence(tag)
        return Delivery(
            tag,
            runner.task_id if runner else held.task_id,
            fence,
            bool(fence) or (held.is_accepted and not runner),
            held.list,
            held.message,
        )

    def _fence(self, tag: str) -> str:
        runner = self._running.get(tag)
        return runner.fence if runner else ""

    def _look_for_foreign_keys(self) -> None:
        self.foreign_keys.look(self.store.client, self._about()[1])

    def _say(self) -> None:
        """Say that this worker is there, and hear whether it is to drain."""
        if self.stopped:
            return  # and forgotten already
        about, queues, roles = self._about()
        version = str(about.get("version", ""))
        told = self.store.heartbeat(
            self._worker, json.dumps(about), queues, version=version, roles=roles
        )
        if told and not self.drained_by:
            self.drained_by = json.loads(told)["who"]
            self._drain(self.drained_by)

    def _lost(self, tag: str) -> None:
        """End a call whose task was settled without it: cancelled, or taken for lost."""
        if (runner := self._running.get(tag)) and not runner.fence:
            return  # it finds out when it begins
        held = self._held.pop(tag, None)
        with self._lock:
            thread_id = self._threads.get(tag)
            aborted = thread_id is not None and self._abort(thread_id)
        if not aborted:
            return
        if held and held.task_id and self._try(self.store.is_settled, held.task_id):
            # As it was meant to be: somebody cancelled it.
            _log.info("delivery.settled", tag=tag, task_id=held.task_id)
        else:
            _log.warning("delivery.lost", tag=tag)

    def _flush(self) -> None:
        """Send the acknowledgements that wait, and give back what was dropped."""
        for waiting, send in (
            (self._done, self.store.acknowledge),
            (self._dropped, self.store.return_unstarted),
        ):
            drained = [waiting.popleft() for _ in range(len(waiting))]
            for tags in batches(drained, BATCH_SIZE):
                if self._try(send, tags) is None:
                    waiting.extend(tags)

    def _try(self, step: Callable[..., T], *args: Any) -> T | None:
        """Do a step; while Redis is away it is left for the next time."""
        try:
            result = step(*args)
            self._away = False
            return result
        except RedisError as error:
            if not is_transient(error):
                self.foreign_keys.refused(error)
            elif not self._away:
                _log.warning("delivery.redis_away", why=explain(error)[0])
            self._away = True
        except Exception:  # noqa: BLE001 - whatever it is
            # Without this thread the worker would be taken for dead, with all it holds.
            _log.exception("delivery.fault")
        return None


def _by_bytes(deliveries: list[Delivery]) -> Iterator[list[Delivery]]:
    """Part deliveries so that no script is given too many, or too much."""
    some: list[Delivery] = []
    size = 0
    for one in deliveries:
        if some and (size + len(one.message) > BATCH_BYTES or len(some) >= BATCH_SIZE):
            yield some
            some, size = [], 0
        some.append(one)
        size += len(one.message)
    if some:
        yield some

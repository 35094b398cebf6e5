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
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import structlog
from redis.exceptions import RedisError

from tasks.delivery import spool
from tasks.delivery.store import Store

TEND_EVERY_S = 2.0
SAY_EVERY = 2
"""Only so many looks after deliveries apart a worker tells of itself."""
BATCH_S = 0.02
"""Acknowledgements that come within this go out together."""
AT_ONCE = 500
"""Tags a script is given at most, so that none keeps Redis busy for long."""

T = TypeVar("T")

_log = structlog.get_logger()


class Keeper:
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
        store: Store,
        abort: Callable[[int], bool] = lambda _: False,
        watch: Callable[[list[str], float], object] | None = None,
    ) -> None:
        self.store = store
        self._abort = abort
        self._watch = watch
        self._worker = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._held: dict[str, str] = {}  # tag -> the queue it was found in
        self._threads: dict[str, int] = {}  # tag -> the thread that runs its task
        self._lock = threading.Lock()
        self._done: deque[str] = deque()
        self._dropped: deque[str] = deque()
        self._wake = threading.Event()
        self._room = threading.Event()
        self._about: Callable[[], tuple[dict[str, Any], Iterable[str]]] = lambda: ({}, ())
        self._drain: Callable[[str], object] = lambda _: None
        self.closing = self.stopped = self._away = self._news = False
        self.drained_by = ""

    def new_tag(self) -> str:
        """Return the beginning of tags that nobody else has."""
        return f"{self._worker}.{next(self._numbers)}"

    def start(
        self,
        about: Callable[[], tuple[dict[str, Any], Iterable[str]]],
        drain: Callable[[str], object],
    ) -> None:
        """
        Start the thread; also an idle worker puts back what others have left.

        Args:
            about: What the worker says of itself, and the queues that it consumes.
            drain: Called once, with the name of who wants the worker to end when it has finished.
        """
        self._about, self._drain = about, drain
        threading.Thread(target=self._run, name="keeper", daemon=True).start()

    @property
    def count(self) -> int:
        """How many deliveries are held."""
        return len(self._held)

    def running_by_queue(self) -> Counter[str]:
        """Count what is held, by the queue it was found in."""
        return Counter(list(self._held.values()))

    def close(self) -> None:
        """Take nothing more."""
        self.closing = True

    def drop_waiting(self) -> None:
        """Give back what has not begun, the newest first, so that the oldest is the next."""
        for tag in reversed(list(self._held)):
            self.drop(tag)

    def say_again(self) -> None:
        """Tell at once what the worker says of itself: it has changed."""
        self._news = True
        self._wake.set()

    def wait_for_room(self, within_s: float) -> None:
        """Wait until a delivery is let go of, or so many seconds have passed."""
        self._room.clear()
        self._room.wait(within_s)

    def hold(self, tag: str, queue: str) -> None:
        """Keep a delivery, found in this queue, from now on."""
        self._held[tag] = queue

    def done(self, tag: str) -> None:
        """Let go of a delivery that is settled, or waits elsewhere."""
        self._held.pop(tag, None)
        self._done.append(tag)
        self._wake.set()
        self._room.set()

    def drop(self, tag: str) -> None:
        """Give a delivery back, unless its task has begun; of several, the newest first."""
        self._dropped.append(tag)
        self._wake.set()

    def give_back(self, tag: str) -> None:
        """Give a delivery back, begun or not: whoever ran it is dead."""
        self._held.pop(tag, None)
        self._room.set()
        self._try(self.store.give_back, [tag], "dead")

    def running(self, tag: str) -> None:
        """Note that the calling thread runs this delivery's task."""
        with self._lock:
            self._threads[tag] = threading.get_ident()

    def ran(self, tag: str) -> None:
        """Note that it does not any more."""
        with self._lock:
            self._threads.pop(tag, None)

    def stop(self) -> None:
        """Give back all that is held and end; tasks that run are cut off, and run elsewhere."""
        self.closing = self.stopped = True
        self._wake.set()
        self._flush()
        held = list(reversed(self._held))
        self._held.clear()
        for tags in _batches(held):
            self._try(self.store.give_back, tags, "all")
        self._try(self.store.leave, self._worker)

    def _run(self) -> None:
        spooled = False
        for turn in itertools.count():
            if self.stopped:
                return
            ends_at = time.monotonic() + TEND_EVERY_S
            parked = self._tend()
            if turn % SAY_EVERY == 0:
                self._try(self._say)
            if not spooled and (number := self._try(spool.replay, self._settle)) is not None:
                spooled = True
                if number:
                    _log.warning("spool.settled", results=number)
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

    def _tend(self) -> list[str]:
        parked: list[str] = []
        for tags in _batches(list(self._held)) or [[]]:
            if (answer := self._try(self.store.tend, tags)) is None:
                return parked
            lost, parked = answer
            for tag in lost:
                self._lost(tag)
        return parked

    def _say(self) -> None:
        """Say that this worker is there, and hear whether it is to drain."""
        if self.stopped:
            return  # and forgotten already
        about, queues = self._about()
        told = self.store.present(self._worker, json.dumps(about), queues)
        if told and not self.drained_by:
            self.drained_by = json.loads(told)["who"]
            self._drain(self.drained_by)

    def _settle(self, settlement: dict[str, Any]) -> str:
        return self.store.settle(**settlement)

    def _lost(self, tag: str) -> None:
        """End a call whose task was settled without it: cancelled, or taken for lost."""
        self._held.pop(tag, None)
        with self._lock:
            thread_id = self._threads.get(tag)
            if thread_id is not None and self._abort(thread_id):
                _log.warning("delivery.lost", tag=tag)

    def _flush(self) -> None:
        """Send the acknowledgements that wait, and give back what was dropped."""
        for waiting, send in (
            (self._done, self.store.release),
            (self._dropped, lambda tags: self.store.give_back(tags, "waiting")),
        ):
            for tags in _batches([waiting.popleft() for _ in range(len(waiting))]):
                if self._try(send, tags) is None:
                    waiting.extend(tags)

    def _try(self, step: Callable[..., T], *args: Any) -> T | None:
        """Do a step; while Redis is away it is left for the next time."""
        try:
            result = step(*args)
            self._away = False
            return result
        except RedisError as error:
            if not self._away:
                _log.warning("delivery.redis_away", error=type(error).__name__)
            self._away = True
        except Exception:  # noqa: BLE001 - whatever it is
            # Without this thread the worker would be taken for dead, with all it holds.
            _log.exception("delivery.fault")
        return None


def _batches(tags: list[str]) -> list[list[str]]:
    return [tags[i : i + AT_ONCE] for i in range(0, len(tags), AT_ONCE)]

"""
Send the deltas of streamed tasks to Redis while their workers run them.

The thread that reads a provider's stream never waits for Redis: it only buffers deltas. One thread
of the process sends the deltas of all tasks together, every 20 ms; the first delta of a task goes
at once. While Redis is away the deltas stay in the buffer, up to the largest size of a result.
"""

import json
import threading
import time

import structlog
from redis.exceptions import NoScriptError, RedisError

from breaker import threads
from breakwater.asking.events import RESTART, TEXT, TOOL_CALL, stream_key
from breakwater.calls.call import MAX_BYTES
from breakwater.content import Delta, TextDelta
from breakwater.messaging.keys import result_key, task_key
from breakwater.redis.encryption import seal
from tasks.delivery.delivery_store import DeliveryStore

BATCH_INTERVAL_S = 0.02
"""Deltas that arrive within this time are sent together."""
REDIS_RETRY_S = 0.2
"""The time until Redis is tried again after it has not answered."""
FINISH_TIMEOUT_S = 5.0
"""The longest time that a finished task waits until its last deltas are sent."""
STREAM_TTL_MS = 3_600_000
"""The time for which a stream is kept after its last event."""

_log = structlog.get_logger("breakwater")

Batch = tuple[int, list[str]]
"""A number, and alternately the kind of an event and its sealed data."""


class Writer:
    """
    The stream of one task while this process runs it.

    Args:
        sender: Sends the events.
        task_id: The id of the task.
        fence: The fence of this delivery; Redis refuses batches with an older fence.
        batches_sent: The number of batches that earlier deliveries of the task have sent.
    """

    def __init__(self, sender: "StreamSender", task_id: str, fence: str, batches_sent: int) -> None:
        self._sender = sender
        self.task_id = task_id
        self.fence = fence
        self._number = batches_sent
        self._lock = threading.Lock()
        self._events: list[tuple[str, dict[str, object]]] = []
        self._unsent: Batch | None = None  # until Redis has confirmed it
        self._size = 0
        self._is_over = self._is_full = False
        self._empty = threading.Event()
        self._empty.set()
        self.has_begun = False
        """Whether a delta of the current answer was written."""

    def delta(self, delta: Delta) -> None:
        """Buffer the next delta of the answer, and wake the sender."""
        first = not self.has_begun
        self.has_begun = True
        with self._lock:
            if isinstance(delta, TextDelta):
                self._add_text(delta.text)
            else:
                self._size += len(delta.arguments)
                data = {"index": delta.index, "id": delta.id, "name": delta.name}
                self._events.append((TOOL_CALL, {**data, "arguments": delta.arguments}))
            if self._size > MAX_BYTES:  # the result is as large, and will be refused
                self._is_full = True
                self._events.clear()
        self._sender.wake(self, at_once=first)

    def restart(self, provider: str, error: str) -> None:
        """Retract the answer so far: readers get a restart event."""
        with self._lock:
            self.has_begun, self._size, self._is_full = False, 0, False
            self._events = [(RESTART, {"provider": provider, "error": error})]
        self._sender.wake(self, at_once=True)

    def finish(self) -> None:
        """Wait up to FINISH_TIMEOUT_S for the last deltas; readers get the rest from the result."""
        if not self._empty.wait(FINISH_TIMEOUT_S):
            _log.warning("stream.unfinished", task_id=self.task_id)
        self._is_over = True

    def batch(self) -> Batch | None:
        """Return the next batch; the same again until `sent` confirms it, None if there is none."""
        with self._lock:
            if self._unsent is None and self._events:
                self._number += 1
                words = [word for kind, data in self._events for word in (kind, _sealed(data))]
                self._unsent = self._number, words
                self._events = []
            if self._unsent is None or self._is_over:
                self._empty.set()
                return None
            return self._unsent

    def sent(self, *, is_current: bool) -> None:
        """Confirm the last batch; a delivery that is not current any more sends nothing else."""
        with self._lock:
            self._unsent = None
            self._is_over = self._is_over or not is_current
            if not self._events or self._is_over:
                self._empty.set()
                return
        self._sender.wake(self)

    def mark_unsent(self) -> None:
        """Note that there are events to send."""
        self._empty.clear()

    def _add_text(self, text: str) -> None:
        self._size += len(text)
        if self._events and self._events[-1][0] == TEXT:
            last = self._events[-1][1]
            last["text"] = f"{last['text']}{text}"
        else:
            self._events.append((TEXT, {"text": text}))


class StreamSender:
    """
    Sends the events of all tasks of the process, in one thread.

    Args:
        store: Its client and script send the batches.
    """

    def __init__(self, store: DeliveryStore) -> None:
        self._store = store
        self._script = store.script("stream")
        self._dirty: set[Writer] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._at_once = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self, writer: Writer, *, at_once: bool = False) -> None:
        """Send the events of a writer within BATCH_INTERVAL_S, or at once."""
        with self._lock:
            writer.mark_unsent()
            self._dirty.add(writer)
            if self._thread is None:
                self._thread = threads.start(self._run, "sender")
        if at_once:
            self._at_once.set()
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._at_once.wait(BATCH_INTERVAL_S)
            self._at_once.clear()
            with self._lock:
                due, self._dirty = self._dirty, set()
            try:
                self._send([(writer, batch) for writer in due if (batch := writer.batch())])
            except Exception as fault:  # noqa: BLE001 - no fault may end the thread of all tasks
                if not isinstance(fault, RedisError):
                    _log.exception("stream.fault")
                time.sleep(REDIS_RETRY_S)
                for writer in due:
                    self.wake(writer)

    def _send(self, batches: list[tuple[Writer, Batch]]) -> None:
        if not batches:
            return
        pipe = self._store.client.pipeline(transaction=False)
        for writer, (number, words) in batches:
            task_id = writer.task_id
            keys = task_key(task_id), stream_key(task_id), result_key(task_id)
            pipe.evalsha(self._script.sha, 3, *keys, writer.fence, number, STREAM_TTL_MS, *words)
        refused: Exception | None = None
        for (writer, _), reply in zip(batches, pipe.execute(raise_on_error=False), strict=True):
            if isinstance(reply, Exception):
                refused = reply
                self.wake(writer)
            else:
                writer.sent(is_current=reply == 1)
        if isinstance(refused, NoScriptError):  # Redis was restarted
            self._store.client.script_load(self._script.script)
        elif refused:
            raise refused


def _sealed(data: dict[str, object]) -> str:
    return seal(json.dumps(data, separators=(",", ":")))

"""
Read a task's stream: from any process, by any number of readers, from any position.

`_Reader.steps` decides what to read, without any I/O. The two loops around it, for threads and for
asyncio, only send its commands to Redis and yield its events.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import redis
from celery.exceptions import TimeoutError as WaitedTooLong
from redis.exceptions import RedisError

from breakwater.asking.events import END, RESTART, TEXT, TOOL_CALL, Event, stream_key
from breakwater.celery_app import app
from breakwater.content import JsonObject
from breakwater.enqueueing.interface import AsyncResult
from breakwater.errors import BreakwaterError
from breakwater.redis.connection import async_client, is_transient, unavailable
from breakwater.redis.encryption import opened
from breakwater.redis.text import to_text
from breakwater.result import read_result

POLL_MS = 1_000
"""While the stream is silent, a reader polls for the result at this interval."""
MAX_DOWN_S = 60.0
"""How long a reader waits while Redis is unavailable."""
PAUSE_S = 0.2
BATCH_SIZE = 500
"""The most entries per read."""

Reply = Any
"""A reply of Redis, or the error instead of one."""
Command = tuple[str, JsonObject]
"""The name of a redis-py method, and its arguments."""
Steps = Generator["Command | Event | float", Reply, None]
"""Commands, whose replies are sent back; events; and pauses in seconds."""


class Stream:
    """
    The events of one task, for `for` and for `async for`; see `stream`.

    Each iteration starts at the beginning, and has its own position.
    """

    def __init__(self, task_id: str, after: str | None, timeout_s: float | None) -> None:
        self._task_id = task_id
        self._after = after
        self._timeout_s = timeout_s

    def __iter__(self) -> Iterator[Event]:
        """Read in this thread."""
        steps = self._steps()
        reply: Reply = None
        while (step := _next(steps, reply)) is not None:
            reply = None
            if isinstance(step, Event):
                yield step
            elif isinstance(step, float):
                time.sleep(step)
            else:
                reply = _call(app.backend.client, step)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Read in this event loop, over a separate connection."""
        steps = self._steps()
        reply: Reply = None
        cancels = _cancels()
        async with async_client() as client:
            while (step := _next(steps, reply)) is not None:
                reply = None
                if isinstance(step, Event):
                    yield step
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    name, arguments = step
                    try:
                        reply = await getattr(client, name)(**arguments)
                    except RedisError as error:
                        reply = error
                    # redis-py uses asyncio.wait_for. Before Python 3.12 that loses a cancellation
                    # if the awaited operation ends in the same moment.
                    if _cancels() > cancels:
                        raise asyncio.CancelledError

    def _steps(self) -> Steps:
        return _Reader(self._task_id, self._after, self._timeout_s).steps()


def stream(
    result: AsyncResult[object] | str, *, after: str | None = None, timeout: float | None = None
) -> Stream:
    """
    Read the answer of a task while the model writes it, and the result at the end.

    Enqueue the task with `stream=True`. The text since the last `restart` always equals that of the
    result. If a task was not streamed, or its stream has expired (an hour after its last entry),
    one event has the whole text.

    Args:
        result: The return value of `apply_async`, or a task's id.
        after: The id of the last event that was read, to continue there; None: from the beginning.
        timeout: Seconds until the reader stops; the task continues.

    Raises:
        BreakwaterError: The task failed; the same error as of `result.get()`.
        celery.exceptions.TaskRevokedError: The task was cancelled.
        celery.exceptions.TimeoutError: The timeout ended.
        QueueUnavailable: Redis is unavailable for a minute.
    """
    task_id = result
    if not isinstance(task_id, str):
        task_id = str(task_id.id)
    return Stream(task_id, after, timeout)


class _Reader:
    """The position of one reader, and what it has read of the current answer."""

    def __init__(self, task_id: str, after: str | None, timeout_s: float | None) -> None:
        self._task_id = task_id
        self._result = app.backend.get_key_for_task(task_id)
        self._last = after or "0"
        self._ends_at = float("inf")
        if timeout_s is not None:
            self._ends_at = time.monotonic() + timeout_s
        # A reader that continues after an event has read all earlier pieces.
        self._text: list[str] | None = []
        if after:
            self._text = None
        self._has_calls = bool(after)

    def steps(self) -> Steps:
        """Yield commands, pauses and events."""
        while True:
            entries = yield from self._ask("xread", self._xread())
            result = None
            if not entries:  # the task may have a result without an `end` event
                result = yield from self._ask("get", {"name": self._result})
                entries = result and (yield from self._ask("xread", self._xread(block=False)))
            for entry_id, event, data in _read(entries):
                self._last = entry_id
                if event == END:
                    result = yield from self._ask("get", {"name": self._result})
                    yield from self._end(result)
                    return
                if piece := Event.of(entry_id, event, json.loads(opened(data))):
                    self._note(piece)
                    yield piece
            if result:
                yield from self._end(result)
                return

    def _xread(self, *, block: bool = True) -> JsonObject:
        arguments: JsonObject = {
            "streams": {stream_key(self._task_id): self._last}, "count": BATCH_SIZE,
        }  # fmt: skip
        if not block:
            return arguments
        left_s = min(POLL_MS / 1000, self._ends_at - time.monotonic())
        if left_s <= 0:
            raise WaitedTooLong(f"task {self._task_id} did not end within the timeout")
        return {**arguments, "block": max(1, round(left_s * 1000))}

    def _ask(self, name: str, arguments: JsonObject) -> Generator[Command | float, Reply, Reply]:
        gives_up_at = time.monotonic() + MAX_DOWN_S
        while isinstance(reply := (yield name, arguments), RedisError):
            if not is_transient(reply) or time.monotonic() > gives_up_at:
                raise unavailable(
                    "the stream cannot be read", reply, "then read it again", {}
                ) from None
            if time.monotonic() > self._ends_at:
                raise WaitedTooLong(f"Redis is away until the timeout: {type(reply).__name__}")
            yield PAUSE_S
        return reply

    def _note(self, event: Event) -> None:
        if event.type == RESTART:
            self._text, self._has_calls = [], False
        elif event.type == TOOL_CALL:
            self._has_calls = True
        elif self._text is not None:
            self._text.append(event.text)

    def _end(self, meta: bytes | str | None) -> Generator[Event, None, None]:
        """Yield the pieces that the stream lacks, and the result."""
        if meta is None:
            raise BreakwaterError(f"the result of task {self._task_id} has expired")
        stored = app.backend.decode_result(meta)["result"]
        if isinstance(stored, Exception):
            raise stored
        result = read_result(stored)
        text = result["text"]
        if self._text is not None and (streamed := "".join(self._text)) != text:
            if streamed:  # Redis was unavailable for the last pieces
                yield Event(RESTART, self._last, error="Incomplete")
                self._has_calls = False
            yield Event(TEXT, self._last, text=text)
        calls = result["tool_calls"]
        if self._has_calls:
            calls = []
        for index, call in enumerate(calls):
            yield Event(
                TOOL_CALL, self._last, index=index, call_id=call["id"], name=call["name"],
                arguments=json.dumps(call["arguments"]),
            )  # fmt: skip
        yield Event(END, self._last, result=result)


def _read(entries: Reply) -> Iterator[tuple[str, str, str]]:
    """
    Yield id, event and data of each entry; reads the replies of both versions of the protocol.
    """
    if isinstance(entries, dict):  # RESP3
        batches = [batch for nested in entries.values() for batch in nested]
    else:
        batches = [batch for _, batch in entries or []]
    for batch in batches:
        for entry_id, fields in batch:
            yield to_text(entry_id), to_text(fields[b"event"]), to_text(fields[b"data"])


def _next(steps: Steps, reply: Reply) -> Command | Event | float | None:
    try:
        return steps.send(reply)
    except StopIteration:
        return None


def _cancels() -> int:
    """Return how often this coroutine's task was cancelled."""
    task = asyncio.current_task()
    if task is None:
        return 0
    return task.cancelling()


def _call(client: redis.Redis, command: Command) -> Reply:
    name, arguments = command
    try:
        return getattr(client, name)(**arguments)
    except RedisError as error:
        return error

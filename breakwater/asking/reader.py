"""
Reading a task's stream: from anywhere, from its beginning or from where one stopped, any number.

What is read is decided once, without any I/O (`_Reader.steps`); the two loops around it, for
threads and for asyncio, only carry its commands to Redis and its events to the caller.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

from celery.exceptions import TimeoutError as WaitedTooLong
from redis.exceptions import RedisError

from breakwater.asking.events import END, RESTART, TEXT, TOOL_CALL, Event, stream_key
from breakwater.celery_app import app
from breakwater.enqueueing.interface import AsyncResult
from breakwater.errors import BreakwaterError
from breakwater.redis.connection import async_client, is_transient, unavailable
from breakwater.redis.encryption import opened
from breakwater.redis.text import to_text
from breakwater.result import read_result

LOOK_MS = 1_000
"""How often a reader looks for a result when the stream says nothing."""
MAX_DOWN_S = 60.0
"""How long a reader waits for Redis when it is away."""
PAUSE_S = 0.2
AT_ONCE = 500
"""Entries that are read together."""

Command = tuple[str, dict[str, Any]]


class Stream:
    """
    The events of one task, for `for` and for `async for`; see `stream`.

    Each iteration begins anew, with a place of its own.
    """

    def __init__(self, task_id: str, after: str | None, timeout_s: float | None) -> None:
        self._task_id = task_id
        self._after = after
        self._timeout_s = timeout_s

    def __iter__(self) -> Iterator[Event]:
        """Read in this thread."""
        steps = self._steps()
        reply: Any = None
        while (step := _next(steps, reply)) is not None:
            reply = None
            if isinstance(step, Event):
                yield step
            elif isinstance(step, float):
                time.sleep(step)
            else:
                reply = _reply(lambda name, how: getattr(app.backend.client, name)(**how), step)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Read in this event loop, over a connection of its own."""
        steps = self._steps()
        reply: Any = None
        cancels = _cancels()
        async with async_client() as client:
            while (step := _next(steps, reply)) is not None:
                reply = None
                if isinstance(step, Event):
                    yield step
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    name, how = step
                    try:
                        reply = await getattr(client, name)(**how)
                    except RedisError as error:
                        reply = error
                    # redis-py sends through asyncio.wait_for, which before Python 3.12 forgets
                    # that it was cancelled if what it waits for ends in the same moment.
                    if _cancels() > cancels:
                        raise asyncio.CancelledError

    def _steps(self) -> Generator[Command | Event | float, Any, None]:
        return _Reader(self._task_id, self._after, self._timeout_s).steps()


def stream(
    result: AsyncResult[Any] | str, *, after: str | None = None, timeout: float | None = None
) -> Stream:
    """
    Read what a task enqueued with `stream=True` says while it runs, and its result at the end.

    The text since the last `restart` is always that of the result. A task that was not streamed,
    or whose stream has expired (an hour after its last word), says its whole text at once.

    Args:
        result: What `apply_async` returned, or a task's id.
        after: The id of the last event that was read, to go on from there; None: the beginning.
        timeout: Seconds until the reader gives up; the task does not.

    Raises:
        BreakwaterError: The task has failed; as `result.get()` raises it.
        celery.exceptions.TaskRevokedError: It was cancelled.
        celery.exceptions.TimeoutError: The time is over.
        QueueUnavailable: Redis is away for a minute.
    """
    return Stream(result if isinstance(result, str) else str(result.id), after, timeout)


class _Reader:
    """One reader's place, and what it has read of the answer that runs."""

    def __init__(self, task_id: str, after: str | None, timeout_s: float | None) -> None:
        self._task_id = task_id
        self._result = app.backend.get_key_for_task(task_id)
        self._last = after or "0"
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        # Who goes on from somewhere has read what came before.
        self._text: list[str] | None = None if after else []
        self._calls = bool(after)

    def steps(self) -> Generator[Command | Event | float, Any, None]:
        """Yield commands, whose replies are sent back; pauses, in seconds; and events."""
        while True:
            entries = yield from self._ask("xread", self._look())
            result = None
            if not entries:  # it may have one without a stream that says so
                result = yield from self._ask("get", {"name": self._result})
                entries = result and (yield from self._ask("xread", self._look(block=False)))
            for entry_id, event, data in _read(entries):
                self._last = entry_id
                if event == END:
                    result = yield from self._ask("get", {"name": self._result})
                    yield from self._end(result)
                    return
                if told := Event.of(entry_id, event, json.loads(opened(data))):
                    self._note(told)
                    yield told
            if result:
                yield from self._end(result)
                return

    def _look(self, *, block: bool = True) -> dict[str, Any]:
        look = {"streams": {stream_key(self._task_id): self._last}, "count": AT_ONCE}
        if not block:
            return look
        left_s = LOOK_MS / 1000
        if self._ends_at is not None:
            left_s = min(left_s, self._ends_at - time.monotonic())
        if left_s <= 0:
            raise WaitedTooLong(f"task {self._task_id} has not come to its end in time")
        return {**look, "block": max(1, round(left_s * 1000))}

    def _ask(self, name: str, how: dict[str, Any]) -> Generator[Any, Any, Any]:
        gives_up_at = time.monotonic() + MAX_DOWN_S
        while isinstance(reply := (yield name, how), RedisError):
            if not is_transient(reply) or time.monotonic() > gives_up_at:
                raise unavailable(
                    "the stream cannot be read", reply, "then read it again", {}
                ) from None
            if self._ends_at is not None and time.monotonic() > self._ends_at:
                raise WaitedTooLong(f"Redis is away, and the time is over: {type(reply).__name__}")
            yield PAUSE_S
        return reply

    def _note(self, told: Event) -> None:
        if told.type == RESTART:
            self._text, self._calls = [], False
        elif told.type == TOOL_CALL:
            self._calls = True
        elif self._text is not None:
            self._text.append(told.text)

    def _end(self, meta: bytes | str | None) -> Generator[Event, Any, None]:
        """Tell what the stream has not, and the result."""
        if meta is None:
            raise BreakwaterError(f"the result of task {self._task_id} is not kept any more")
        found = app.backend.decode_result(meta)
        if isinstance(found["result"], Exception):
            raise found["result"]
        result = read_result(found["result"])
        text = result["text"]
        told = "" if self._text is None else "".join(self._text)
        if self._text is not None and told != text:
            if told:  # Redis was away for the last of it
                yield Event(RESTART, self._last, error="Incomplete")
                self._calls = False
            yield Event(TEXT, self._last, text=text)
        for index, call in enumerate([] if self._calls else result["tool_calls"]):
            yield Event(
                TOOL_CALL, self._last, index=index, call_id=call["id"], name=call["name"],
                arguments=json.dumps(call["arguments"]),
            )  # fmt: skip
        yield Event(END, self._last, result=result)


def _read(entries: Any) -> Iterator[tuple[str, str, str]]:
    """Yield id, event and data, in whichever form of Redis' protocol they came."""
    pairs = entries.items() if isinstance(entries, dict) else entries or []
    for _, found in pairs:
        rows = found[0] if isinstance(entries, dict) else found
        for entry_id, fields in rows:
            yield to_text(entry_id), to_text(fields[b"event"]), to_text(fields[b"data"])


def _next(steps: Generator[Any, Any, None], reply: Any) -> Any:
    try:
        return steps.send(reply)
    except StopIteration:
        return None


def _cancels() -> int:
    """Count how often this coroutine's task was asked to end."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _reply(ask: Any, step: Command) -> Any:
    try:
        return ask(*step)
    except RedisError as error:
        return error

"""
One call of `complete` with a waiting caller: in this thread, or in an event loop.

When the caller stops waiting (timeout, cancelled coroutine, closed stream), the task is cancelled,
because no one would read the answer that it pays for. The task's id is chosen here, before the task
is enqueued. So it can be cancelled whether or not Redis already has it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as WaitedTooLong
from celery.result import AsyncResult
from celery.utils import uuid
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater.asking.listener import listener
from breakwater.asking.reader import stream
from breakwater.celery_app import app
from breakwater.completion import complete
from breakwater.enqueueing.interface import Prompt
from breakwater.errors import BreakwaterError, Cancelled, DeadlineExceeded
from breakwater.result import Result, read_result

if TYPE_CHECKING:
    from breakwater.asking.events import Event

_log = logging.getLogger("breakwater")

UNAVAILABLE = (RedisError, OperationalError, OSError)
"""The errors of redis-py and kombu when Redis is unavailable."""


class AnswerRestarted(BreakwaterError):  # noqa: N818 - as in breakwater.errors
    """
    Another target started a new answer, so the pieces that were already yielded are void.

    `details` names the provider that failed, and its error.
    """


class PendingCompletion:
    """
    One call, and the wait for its answer.

    Args:
        options: The options of `complete`.
        timeout_s: The limit for the whole answer; None: no limit.
    """

    def __init__(
        self, role: str, prompt: Prompt, options: Mapping[str, object], timeout_s: float | None
    ) -> None:
        self._role = role
        self._prompt = prompt
        self._options = dict(options)
        self._timeout_s = timeout_s
        self._result: AsyncResult = app.AsyncResult(uuid())

    def answer(self) -> Result:
        """
        Enqueue the call, and wait for the result in this thread.

        Raises:
            BreakwaterError: The task failed, was cancelled, took too long, or was not enqueued.
        """
        try:
            self._start().result(self._timeout_s)
        except TimeoutError:
            return self._late()
        except BreakwaterError:  # it was not enqueued: there is nothing to cancel
            raise
        except BaseException:
            self._cancel()
            raise
        finally:
            listener.forget(self._result)
        return self._settled()

    async def answer_async(self) -> Result:
        """
        Enqueue the call, and wait for the result in this event loop.

        Enqueueing uses a thread, because kombu blocks; waiting uses none.

        Raises:
            BreakwaterError: As `answer` does.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.wrap_future(await asyncio.to_thread(self._start))
        except TimeoutError:
            return await asyncio.to_thread(self._late)
        except asyncio.CancelledError:
            self._cancel_in_thread()
            raise
        finally:
            listener.forget(self._result)
        return self._settled()

    def events(self) -> Generator["Event", None, None]:
        """
        Enqueue the call, and read the answer while the model writes it, in this thread.

        Raises:
            BreakwaterError: As `answer` does.
        """
        over = False
        try:
            self._enqueue(stream=True)
            for event in stream(self._result, timeout=self._timeout_s):
                over = event.type == "end"
                yield event
        except WaitedTooLong:
            raise self._too_late() from None
        except TaskRevokedError:
            raise self._was_cancelled() from None
        except BreakwaterError:  # it failed, or was not enqueued
            raise
        except BaseException:
            if not over:
                self._cancel()
            raise

    async def events_async(self) -> AsyncGenerator["Event", None]:
        """
        Enqueue the call, and read the answer while the model writes it, in this event loop.

        Raises:
            BreakwaterError: As `answer` does.
        """
        over = False
        try:
            await asyncio.to_thread(self._enqueue, stream=True)
            async for event in stream(self._result, timeout=self._timeout_s):
                over = event.type == "end"
                yield event
        except WaitedTooLong:
            raise await asyncio.to_thread(self._too_late) from None
        except TaskRevokedError:
            raise self._was_cancelled() from None
        except BreakwaterError:
            raise
        except BaseException:
            if not over:
                self._cancel_in_thread()
            raise

    def _start(self) -> "Future[None]":
        self._enqueue()
        return listener.subscribe(self._result)

    def _enqueue(self, *, stream: bool = False) -> None:
        options = dict(self._options)
        if stream:
            options["stream"] = True
        complete.apply_async((self._role, self._prompt), options, task_id=self._result.id)

    def _settled(self) -> Result:
        try:
            # The result exists; the check that is off is for tasks that wait for other tasks.
            return read_result(self._result.get(disable_sync_subtasks=False))
        except TaskRevokedError:
            raise self._was_cancelled() from None

    def _late(self) -> Result:
        """Cancel the task; but if it has an answer by now, return that, since it is paid for."""
        error = self._too_late()
        with suppress(*UNAVAILABLE):
            if self._result.successful():
                return self._settled()
        raise error

    def _too_late(self) -> DeadlineExceeded:
        state = "may still run, since Redis is away"
        if self._cancel():
            state = "was cancelled"
        return DeadlineExceeded(
            f"no answer of role {self._role!r} within the timeout of {self._timeout_s} s; "
            f"the task {state}",
            {"task_id": self._result.id},
        )

    def _was_cancelled(self) -> Cancelled:
        return Cancelled("the task was cancelled", {"task_id": self._result.id})

    def _cancel_in_thread(self) -> None:
        """Cancel the task in a thread: a cancelled coroutine must not wait for Redis."""
        asyncio.get_running_loop().run_in_executor(None, self._cancel)

    def _cancel(self) -> bool:
        try:
            app.control.revoke(self._result.id)
        except UNAVAILABLE as error:
            _log.warning("task %s is not cancelled: %s", self._result.id, type(error).__name__)
            return False
        return True

"""
One call of `complete` that somebody waits for: in this thread, or in an event loop.

Whoever stops waiting (the time is over, the coroutine is cancelled, the stream is closed) cancels
the task: nobody would read what it costs. Its id is chosen here, before it is enqueued, so that it
can be cancelled whether or not Redis has it already.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

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
from breakwater.errors import BreakwaterError, Cancelled, DeadlineExceeded
from breakwater.result import Result, read_result

if TYPE_CHECKING:
    from breakwater.asking.events import Event

_log = logging.getLogger("breakwater")

AWAY = (RedisError, OperationalError, OSError)
"""What Redis' absence is raised as, by redis-py and by kombu."""


class AnswerRestarted(BreakwaterError):  # noqa: N818 - as in breakwater.errors
    """
    Another target answers anew, after part of an answer was handed on that is void now.

    `details` name the provider that failed, and its error.
    """


class PendingCompletion:
    """
    One call.

    Args:
        options: Of `complete`.
        timeout_s: How long is waited for the whole answer; None: as long as it takes.
    """

    def __init__(
        self, role: str, prompt: Any, options: Mapping[str, Any], timeout_s: float | None
    ) -> None:
        self._role = role
        self._prompt = prompt
        self._options = dict(options)
        self._timeout_s = timeout_s
        self._result: AsyncResult = app.AsyncResult(uuid())

    def answer(self) -> Result:
        """
        Ask, and wait for the result in this thread.

        Raises:
            BreakwaterError: The task failed, was cancelled, took too long, or was not taken.
        """
        try:
            self._ask().result(self._timeout_s)
        except TimeoutError:
            return self._late()
        except BreakwaterError:  # it was not taken: there is nothing to cancel
            raise
        except BaseException:
            self._cancel()
            raise
        finally:
            listener.forget(self._result)
        return self._settled()

    async def answer_async(self) -> Result:
        """
        Ask, and wait for the result in this event loop.

        A thread is taken for the moment of enqueueing, since kombu blocks; none is while waiting.

        Raises:
            BreakwaterError: As `answer` does.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.wrap_future(await asyncio.to_thread(self._ask))
        except TimeoutError:
            return await asyncio.to_thread(self._late)
        except asyncio.CancelledError:
            self._cancel_aside()
            raise
        finally:
            listener.forget(self._result)
        return self._settled()

    def events(self) -> Generator["Event", None, None]:
        """
        Ask, and read the answer while it comes, in this thread.

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
        except BreakwaterError:  # it has failed, or was not taken
            raise
        except BaseException:
            if not over:
                self._cancel()
            raise

    async def events_async(self) -> AsyncGenerator["Event", None]:
        """
        Ask, and read the answer while it comes, in this event loop.

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
                self._cancel_aside()
            raise

    def _ask(self) -> "Future[None]":
        self._enqueue()
        return listener.hear(self._result)

    def _enqueue(self, *, stream: bool = False) -> None:
        options = dict(self._options)
        if stream:
            options["stream"] = True
        complete.apply_async((self._role, self._prompt), options, task_id=self._result.id)

    def _settled(self) -> Result:
        try:
            # It is there already; the check is for tasks that wait for their own workers.
            return read_result(self._result.get(disable_sync_subtasks=False))
        except TaskRevokedError:
            raise self._was_cancelled() from None

    def _late(self) -> Result:
        """Cancel; return the answer if it was there first, which is paid for."""
        error = self._too_late()
        with suppress(*AWAY):
            if self._result.successful():
                return self._settled()
        raise error

    def _too_late(self) -> DeadlineExceeded:
        cancelled = "was cancelled" if self._cancel() else "may still run, since Redis is away"
        return DeadlineExceeded(
            f"no answer of role {self._role!r} within the {self._timeout_s} s that were waited; "
            f"the task {cancelled}",
            {"task_id": self._result.id},
        )

    def _was_cancelled(self) -> Cancelled:
        return Cancelled("the task was cancelled", {"task_id": self._result.id})

    def _cancel_aside(self) -> None:
        """Cancel in a thread: who is cancelled must not wait for Redis."""
        asyncio.get_running_loop().run_in_executor(None, self._cancel)

    def _cancel(self) -> bool:
        try:
            app.control.revoke(self._result.id)
        except AWAY as error:
            _log.warning("task %s is not cancelled: %s", self._result.id, type(error).__name__)
            return False
        return True

"""
The types of `complete` and of its results, for type checkers.

Celery has no type information of its own. These types describe what `complete` and its results
offer, so that `mypy --strict` checks a caller's code with and without Celery's stubs.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypedDict, TypeVar, Unpack

from breakwater.result import Result

if TYPE_CHECKING:
    from celery.canvas import Signature, group

R_co = TypeVar("R_co", covariant=True)

Json = Mapping[str, object]
Prompt = str | Sequence[Json]
"""A text, or a list of messages `{"role": …, "content": …}`."""


class CompletionOptions(TypedDict, total=False):
    """The options of `complete`; docs/completions.md explains each."""

    system: str
    params: Json
    metadata: Json
    deadline_s: float
    schema: Json | type
    """A JSON Schema, or a pydantic model."""
    tools: Sequence[Json]
    tool_choice: str
    stream: bool


class DeliveryOptions(TypedDict, total=False):
    """Celery's options of a call, as `delay_many` applies them to all of its calls."""

    queue: str | None
    priority: int | None
    """0 (first) to 9 (last)."""
    countdown: float | None
    """Seconds until a worker may start the task."""
    eta: datetime | str | None
    """The time from which a worker may start the task."""
    expires: float | datetime | str | None
    """Seconds, or a time, after which a task that has not started is discarded."""
    headers: Mapping[str, object] | None


class ApplyOptions(DeliveryOptions, total=False):
    """Celery's options of one call, as `apply_async` takes them."""

    task_id: str | None
    link: object
    """A signature, or a list of them: enqueued with the result."""
    link_error: object
    """A signature, or a list of them: enqueued when the task fails."""
    time_limit: float | None
    soft_time_limit: float | None
    retry: bool | None
    ignore_result: bool | None
    shadow: str | None
    """The name that monitoring shows."""
    serializer: str | None
    compression: str | None


Call = tuple[str, Prompt] | tuple[str, Prompt, CompletionOptions | Json]
"""One call of `delay_many`: a role, a prompt, and perhaps options."""


class AsyncResult(Protocol[R_co]):
    """The result of one task, which may not exist yet; at run time, Celery's `AsyncResult`."""

    id: str

    @property
    def state(self) -> str:
        """PENDING (the id is unknown), WAITING, STARTED, SUCCESS, FAILURE or REVOKED."""

    @property
    def result(self) -> R_co | BaseException | None:
        """The result, or the error; None if the task has not ended."""

    def get(self, timeout: float | None = None) -> R_co:
        """
        Wait for the result.

        Raises:
            BreakwaterError: The task failed.
            celery.exceptions.TaskRevokedError: The task was cancelled.
            celery.exceptions.TimeoutError: There is no result after `timeout` seconds.
        """

    def ready(self) -> bool:
        """Return whether there is a result or an error."""

    def successful(self) -> bool:
        """Return whether the task was answered."""

    def failed(self) -> bool:
        """Return whether the task failed."""

    def cancel(self) -> None:
        """Cancel the task, unless it has a result."""

    def forget(self) -> None:
        """Delete the result."""


class CompletionTask(Protocol):
    """The methods of `complete` for callers."""

    name: str

    def delay(
        self, role: str, prompt: Prompt, **options: Unpack[CompletionOptions]
    ) -> AsyncResult[Result]:
        """Enqueue one call; see `apply_async`."""

    def apply_async(
        self,
        args: tuple[str, Prompt],
        kwargs: CompletionOptions | Json | None = None,
        **options: Unpack[ApplyOptions],
    ) -> AsyncResult[Result]:
        """
        Check the call and put it on its role's queue.

        Raises:
            BadTask: The role, the prompt or an option is at fault; nothing was queued.
            QueueUnavailable: Redis refuses, or does not answer within 5 s.
        """

    def delay_many(
        self,
        calls: Iterable[Call],
        *,
        task_ids: Iterable[str] | None = None,
        **options: Unpack[DeliveryOptions],
    ) -> list[AsyncResult[Result]]:
        """Check many calls, and enqueue them in few round trips; see `Complete.delay_many`."""

    def s(
        self, role: str, prompt: Prompt = ..., **options: Unpack[CompletionOptions]
    ) -> "Signature":
        """Make a signature for a canvas; a later stage of a chain has no prompt of its own."""

    def si(self, role: str, prompt: Prompt, **options: Unpack[CompletionOptions]) -> "Signature":
        """Make a signature that ignores the answer of the stage before it."""

    def starmap(self, it: Iterable[tuple[str, Prompt]]) -> "group":
        """Make a group of many calls."""

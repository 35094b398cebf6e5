"""
The types of `complete` and of its results, for type checkers.

Celery has no type information of its own. These Protocols describe what `complete` and its results
offer, so that `mypy --strict` checks a caller's code with and without Celery's stubs.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, Unpack

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


Call = tuple[str, Prompt] | tuple[str, Prompt, Mapping[str, Any]]
"""One call of `delay_many`: a role, a prompt, and perhaps options."""


class AsyncResult(Protocol[R_co]):
    """The result of one task, which may not be there yet; Celery's `AsyncResult` at run time."""

    id: str

    @property
    def state(self) -> str:
        """PENDING (the id is unknown), WAITING, STARTED, SUCCESS, FAILURE or REVOKED."""

    @property
    def result(self) -> R_co | BaseException | None:
        """The result, or the error; None if there is neither yet."""

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
    """What `complete` offers to callers."""

    name: str

    def delay(
        self, role: str, prompt: Prompt, **options: Unpack[CompletionOptions]
    ) -> AsyncResult[Result]:
        """Enqueue one call; see `apply_async`."""

    def apply_async(  # noqa: PLR0913 - Celery's options by name
        self,
        args: tuple[str, Prompt],
        kwargs: CompletionOptions | Json | None = None,
        *,
        task_id: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
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
        queue: str | None = None,
        priority: int | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> list[AsyncResult[Result]]:
        """Check many calls, and enqueue them in few round trips; see `Complete.delay_many`."""

    def s(
        self, role: str, prompt: Prompt = ..., **options: Unpack[CompletionOptions]
    ) -> "Signature":
        """Make a signature for a canvas; a later stage of a chain has no prompt of its own."""

    def si(self, role: str, prompt: Prompt, **options: Unpack[CompletionOptions]) -> "Signature":
        """Make a signature that ignores the answer of the stage before."""

    def starmap(self, it: Iterable[tuple[str, Prompt]]) -> "group":
        """Make a group of many calls."""

"""
The seam between what happens and who traces it; nobody does, until a worker says `use`.

Nothing of opentelemetry is imported here: where it is not installed or not wanted, each step costs
a method call that does nothing.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # producers import this too
    from breakwater.attempt import Attempt
    from tasks.config import ProviderSettings
    from tasks.providers.base import Completion

_NOTHING: AbstractContextManager[object] = nullcontext()


class Tracing:
    """What can be traced in a worker; here, nothing is."""

    def processing(self, request: Any) -> AbstractContextManager[object]:
        """Span one delivery of a task, under its producer's span; the request is Celery's."""
        return _NOTHING

    def calling(
        self, provider: "ProviderSettings", attempt: "Attempt"
    ) -> AbstractContextManager[object]:
        """Span one call of a provider; `tell` of its end within."""
        return _NOTHING

    def tell(
        self,
        provider: "ProviderSettings",
        model: str,
        attempt: "Attempt",
        completion: "Completion | None",
    ) -> None:
        """
        Tell of an attempt that is over: of a call, within its span; of others, which have none.

        Args:
            model: That was asked for.
            completion: None if there is none.
        """


_now = Tracing()


def now() -> Tracing:
    """Return who traces in this process."""
    return _now


def use(tracing: Tracing) -> None:
    """Trace with this from now on, in this process."""
    global _now  # noqa: PLW0603 - one a process
    _now = tracing

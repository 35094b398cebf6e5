"""
The seam between what happens and who traces it; nobody does, until a worker says `use`.

Nothing of opentelemetry is imported here: where it is not installed or not wanted, each step costs
a method call that does nothing.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # producers import this too
    from tasks.config import ProviderSettings
    from tasks.ledger.attempt import Attempt
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


def has_provider() -> bool:
    """
    Tell whether somebody has set up tracing in this process.

    Where opentelemetry is installed, redis-py has imported it; where it is not, this is a look.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )


def publishing(
    role: str, queue: str, task_id: str, headers: dict[str, Any]
) -> AbstractContextManager[object]:
    """Span the sending of a task, and put the span's context into the message's headers."""
    if not has_provider():
        return _NOTHING
    from tasks.telemetry import publishing  # noqa: PLC0415 - where it is installed

    return publishing(role, queue, task_id, headers)

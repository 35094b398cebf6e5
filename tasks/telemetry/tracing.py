"""
The seam for tracing: spans of deliveries and calls, which do nothing until a worker calls `use`.

This module does not import opentelemetry. Where it is not installed or not wanted, each span costs
one method call that does nothing.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.app.task import Context

    from breakwater.attempt import Attempt
    from tasks.config import ProviderSettings

_NOTHING: AbstractContextManager[object] = nullcontext()


class Tracing:
    """What a worker traces; this class traces nothing."""

    def processing(self, request: "Context") -> AbstractContextManager[object]:
        """
        Open the span of one delivery, as a child of its producer's span.

        Args:
            request: Celery's.
        """
        return _NOTHING

    def calling(
        self, provider: "ProviderSettings", attempt: "Attempt"
    ) -> AbstractContextManager[object]:
        """Open the span of one provider call; its attempt is recorded inside the span."""
        return _NOTHING


_current = Tracing()


def current() -> Tracing:
    """Return the tracing of this process."""
    return _current


def use(tracing: Tracing) -> None:
    """Trace with this from now on, in this process."""
    global _current  # noqa: PLW0603 - one for each process
    _current = tracing

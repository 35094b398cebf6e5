"""
The span of a task that is sent, where this process has set up OpenTelemetry.

Nothing of opentelemetry is imported here: where it is not installed or not wanted, to send a task
costs a look at `sys.modules`.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_NOTHING: AbstractContextManager[object] = nullcontext()


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
    from breakwater.messaging.producer_span import publishing  # noqa: PLC0415 - where it is installed

    return publishing(role, queue, task_id, headers)

"""
The producer's span of a task, if this process has set up OpenTelemetry.

This module does not import opentelemetry. If it is not installed or not set up, sending a task
costs one check of `sys.modules`.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_NOTHING: AbstractContextManager[object] = nullcontext()


def has_provider() -> bool:
    """
    Return whether the application has set up tracing in this process.

    If opentelemetry is installed, redis-py has imported it; so a check of `sys.modules` is enough.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )


def publishing(
    role: str, queue: str, task_id: str, headers: dict[str, object]
) -> AbstractContextManager[object]:
    """Open a span for the sending of a task, and add its context to the message's headers."""
    if not has_provider():
        return _NOTHING
    from breakwater.messaging.producer_span import publishing  # noqa: PLC0415 - it may be missing

    return publishing(role, queue, task_id, headers)

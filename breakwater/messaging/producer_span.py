"""
The producer's span of a task, and the attributes that it shares with the span of its processing.

Source: open-telemetry/semantic-conventions, docs/messaging/messaging-spans.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from celery import current_task
from celery.exceptions import Ignore, Reject, Retry
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

SCOPE = "breakwater"
MESSAGING_SYSTEM = "messaging.system"
MESSAGING_OPERATION_NAME = "messaging.operation.name"
MESSAGING_OPERATION_TYPE = "messaging.operation.type"
MESSAGING_DESTINATION = "messaging.destination.name"
MESSAGING_MESSAGE_ID = "messaging.message.id"
CELERY, SEND, PROCESS = "celery", "send", "process"
ERROR_TYPE = "error.type"
ROLE = "breakwater.role"
WAITS = (Ignore, Reject, Retry)
"""A task that ends with one of these has not failed."""


@contextmanager
def publishing(role: str, queue: str, task_id: str, headers: dict[str, object]) -> Iterator[None]:
    """
    Open a span for the sending of a task, and add its context to the headers.

    The worker that ran one stage of a chain sends the next one, which belongs to the same trace.
    """
    tracer = trace.get_tracer(SCOPE)
    parent = None
    if not trace.get_current_span().get_span_context().is_valid and current_task:
        parent = propagate.extract(current_task.request.headers or {})
    with tracer.start_as_current_span(
        f"{SEND} {queue}",
        parent,
        kind=SpanKind.PRODUCER,
        attributes=of_message(SEND, role, queue, task_id),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        propagate.inject(headers)
        with failures(span):
            yield


def of_message(operation: str, role: str, queue: str, task_id: str) -> dict[str, str]:
    return {
        MESSAGING_SYSTEM: CELERY,
        MESSAGING_OPERATION_NAME: operation,
        MESSAGING_OPERATION_TYPE: operation,
        MESSAGING_DESTINATION: queue,
        MESSAGING_MESSAGE_ID: task_id,
        ROLE: role,
    }


@contextmanager
def failures(span: trace.Span) -> Iterator[None]:
    """Record in a span the class of the error that ended it; its message may quote a prompt."""
    try:
        yield
    except WAITS:
        raise
    except BaseException as error:
        fail(span, type(error).__name__)
        raise


def fail(span: trace.Span, error: str) -> None:
    span.set_attribute(ERROR_TYPE, error)
    span.set_status(Status(StatusCode.ERROR))

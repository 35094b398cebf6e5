"""
The client of Breakwater, and the vocabulary that clients and workers share.

    from breakwater import complete

    complete.delay("coder", "Write a quicksort").get(timeout=60)["text"]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from breakwater import errors
    from breakwater.asking.events import Event
    from breakwater.asking.reader import stream
    from breakwater.completion import app, complete
    from breakwater.enqueueing.interface import (
        AsyncResult,
        CompletionOptions,
        CompletionTask,
        Prompt,
    )
    from breakwater.result import Result
    from breakwater.workflows import workflow

__all__ = [
    "AsyncResult",
    "CompletionOptions",
    "CompletionTask",
    "Event",
    "Prompt",
    "Result",
    "app",
    "complete",
    "errors",
    "stream",
    "workflow",
]

_WHERE = {
    "AsyncResult": "breakwater.enqueueing.interface",
    "CompletionOptions": "breakwater.enqueueing.interface",
    "CompletionTask": "breakwater.enqueueing.interface",
    "Event": "breakwater.asking.events",
    "Prompt": "breakwater.enqueueing.interface",
    "Result": "breakwater.result",
    "app": "breakwater.completion",  # the app with its tasks
    "complete": "breakwater.completion",
    "stream": "breakwater.asking.reader",
    "workflow": "breakwater.workflows",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are used: a producer need not load the workflow engine."""
    if name == "errors":
        return import_module("breakwater.errors")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value

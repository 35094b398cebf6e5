"""
The client of Breakwater, and the vocabulary that clients and workers share.

    from breakwater import complete

    complete.delay("coder", "Write a quicksort").get(timeout=60)["text"]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from breakwater.asking.reader import stream
    from breakwater.completion import app, complete
    from breakwater.workflows import workflow

__all__ = ["app", "complete", "stream", "workflow"]

_WHERE = {
    "app": "breakwater.completion",  # the app with its tasks
    "complete": "breakwater.completion",
    "stream": "breakwater.asking.reader",
    "workflow": "breakwater.workflows",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are used: a producer need not load the workflow engine."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value

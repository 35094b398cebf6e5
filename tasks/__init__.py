"""What Breakwater does: `from tasks import complete`, then `complete.delay(role, prompt)`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.completion import app, complete
    from tasks.streaming.reader import stream
    from tasks.workflows import workflow

__all__ = ["app", "complete", "stream", "workflow"]

_WHERE = {
    "app": "tasks.completion",  # the app with its task
    "complete": "tasks.completion",
    "stream": "tasks.streaming.reader",
    "workflow": "tasks.workflows",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and not what else there is: who enqueues runs no workflow."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value

"""What Breakwater does: `from tasks import complete`, then `complete.delay(role, prompt)`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tasks import moved

if TYPE_CHECKING:
    from breakwater.asking.reader import stream
    from breakwater.completion import complete
    from breakwater.workflows import workflow
    from tasks.worker_app import app

__all__ = ["app", "complete", "stream", "workflow"]

_WHERE = {
    "app": "tasks.worker_app",
    "complete": "breakwater.completion",
    "stream": "breakwater.asking.reader",
    "workflow": "breakwater.workflows",
}


moved.install()


def __getattr__(name: str) -> Any:
    """Import public names when they are used: a producer need not load the workflow engine."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value

"""What Breakwater does: `from tasks import complete`, then `complete.delay(role, prompt)`."""

from tasks.completion import complete
from tasks.queue import app
from tasks.streaming.reader import stream
from tasks.workflows import workflow

__all__ = ["app", "complete", "stream", "workflow"]

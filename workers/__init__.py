"""How Breakwater runs: `celery -A workers worker`."""

from tasks.queue import app
from workers import lifecycle, shutdown

__all__ = ["app", "lifecycle", "shutdown"]

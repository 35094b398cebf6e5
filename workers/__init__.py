"""How Breakwater runs: `celery -A workers worker`."""

from tasks.queue import app
from workers import lifecycle

__all__ = ["app", "lifecycle"]

"""How Breakwater runs: `celery -A workers worker`."""

from tasks import app
from workers import lifecycle, shutdown

__all__ = ["app", "lifecycle", "shutdown"]

"""
Names that producers and workers share: tasks, queues, their lists, and the keys of results.

Each role has its own queue. So a role can have its own workers, and a role whose providers are all
down does not delay others. A producer that does not know the roles uses the common queue, which has
Celery's default name: `app.send_task("complete", …)` in another code base enqueues there. Every
worker consumes it, and a misspelt role fails with `UnknownRole`.
"""

import os

from breakwater.calls.value_types import NAME

QUEUE = "BREAKWATER_QUEUE"
COMMON_QUEUE = os.environ.get(QUEUE) or "celery"
WORKFLOW_TASK = "workflow"
"""The name of the task that advances a workflow after each stage."""
PRIORITY_MARK = "\x06\x16"
PRIORITIES = (0, 3, None, 6, 9)
"""The lists of a queue in the order in which workers take from them; None: its own list."""
RESULT = "celery-task-meta-"
"""Celery's prefix of the keys of results."""


def queue_of(role: str) -> str:
    """Return the name of a role's own queue."""
    return f"role.{role}"


def list_of(queue: str, priority: int | None) -> str:
    """
    Return the list of a queue for a priority.

    Args:
        priority: 0 is taken first, 9 last; None is taken between 5 and 6.
    """
    if priority is None:
        return queue
    steps = [step for step in PRIORITIES if step is not None]
    return f"{queue}{PRIORITY_MARK}{max(step for step in steps if step <= max(priority, 0))}"


def shadow_name(role: object) -> str:
    """Return the name that monitoring shows, such as `complete[coder]`."""
    if not isinstance(role, str) or not NAME.fullmatch(role):
        role = "?"  # it may be a prompt
    return f"complete[{role}]"


def role_in(args: object, kwargs: object) -> object:
    """Return the value in the place of a call's role; it may be of any type."""
    if isinstance(kwargs, dict) and "role" in kwargs:
        return kwargs["role"]
    if isinstance(args, list | tuple) and args:
        return args[0]
    return None

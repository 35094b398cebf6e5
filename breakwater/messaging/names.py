"""
Names that producers and workers agree on: tasks, queues, their lists, and the keys of results.

A queue per role, so that a role can have workers of its own and a role whose providers are all
down holds up nobody else. A producer that cannot know the roles uses the common queue, which is
Celery's own default name: `app.send_task("complete", …)` from any other codebase ends up there,
every worker consumes it, and a misspelt role comes back as `UnknownRole`.
"""

import os
from typing import Any

from breakwater.calls.value_types import NAME

QUEUE = "BREAKWATER_QUEUE"
COMMON_QUEUE = os.environ.get(QUEUE) or "celery"
WORKFLOW_TASK = "workflow"
"""The name of the task that stands behind each stage of a workflow."""
PRIORITY_MARK = "\x06\x16"
PRIORITIES = (0, 3, None, 6, 9)
"""The lists of a queue, in the order in which they are taken; None: the queue's own list."""
RESULT = "celery-task-meta-"
"""What the key of a result begins with, in Celery's own words."""


def queue_of(role: str) -> str:
    """Return the name of a role's own queue."""
    return f"role.{role}"


def list_of(queue: str, priority: int | None) -> str:
    """
    Return the list of a queue that holds what has this priority.

    Args:
        priority: 0 is the first to be taken, 9 the last; None stands between 5 and 6.
    """
    if priority is None:
        return queue
    steps = [step for step in PRIORITIES if step is not None]
    return f"{queue}{PRIORITY_MARK}{max(step for step in steps if step <= max(priority, 0))}"


def shadow_name(role: object) -> str:
    """Return the name that monitoring shows, such as `complete[coder]`."""
    known = isinstance(role, str) and NAME.fullmatch(role)  # else it may be a prompt
    return f"complete[{role if known else '?'}]"


def role_in(args: Any, kwargs: Any) -> object:
    """Return what stands where a call of `complete` has its role; it may be anything."""
    if isinstance(kwargs, dict) and "role" in kwargs:
        return kwargs["role"]
    return args[0] if isinstance(args, list | tuple) and args else None

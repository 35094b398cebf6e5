"""
The Celery app: what producer and worker must agree on.

A queue per role, so that a role can have workers of its own and a role whose providers are all
down holds up nobody else. A producer that cannot know the roles uses the common queue, which is
Celery's own default name: `app.send_task("complete", …)` from any other codebase ends up there,
every worker consumes it, and a misspelt role comes back as `UnknownRole`.
"""

import os
from typing import Any

from tasks.call import ROLE_NAME
from tasks.cancel import App
from tasks.errors import QueueUnavailable

__all__ = ["QueueUnavailable", "app", "queue_of"]

QUEUE = "BREAKWATER_QUEUE"
COMMON_QUEUE = os.environ.get(QUEUE) or "celery"
STEP = "workflow"
"""The name of the task that stands behind each stage of a workflow."""
RESULT_EXPIRES_S = 24 * 3600
ANSWER_S = 2.0


def queue_of(role: str) -> str:
    """Return the name of a role's own queue."""
    return f"role.{role}"


app = App(
    "breakwater",
    # Our transport and our backend go by REDIS_URL, so that Celery has no password to tell.
    broker="redis://",
    backend="tasks.delivery.backend:Backend+redis://",
    include=["tasks.completion", "tasks.workflows.advance"],
)
app.conf.update(
    broker_transport="tasks.delivery.transport:Transport",
    worker_consumer="tasks.delivery.consumer:Consumer",
    task_default_queue=COMMON_QUEUE,
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    result_expires=RESULT_EXPIRES_S,
    # One connection pool for all threads; without it gevent opens a connection per task.
    result_backend_thread_safe=True,
    # With one repetition, `delay()` fails within 5 s if Redis takes connections and says nothing;
    # by default it waits for ever.
    broker_transport_options={
        "socket_connect_timeout": ANSWER_S,
        "socket_timeout": ANSWER_S,
        # A worker's connection that has gone silent is given up after 11 s at most, not 51.
        "health_check_interval": 5,
    },
    task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1},
    # A message is acknowledged after its result is stored, and a worker holds only what it runs.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_redirect_stdouts=False,
    # A connection that is lost and found changes nothing for what runs, nor for how much may.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_prefetch_count_reduction=False,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
)


def shadow_name(role: object) -> str:
    """Return the name that monitoring shows, such as `complete[coder]`."""
    known = isinstance(role, str) and ROLE_NAME.fullmatch(role)  # else it may be a prompt
    return f"complete[{role if known else '?'}]"


def role_in(args: Any, kwargs: Any) -> object:
    """Return what stands where a call of `complete` has its role; it may be anything."""
    if isinstance(kwargs, dict) and "role" in kwargs:
        return kwargs["role"]
    return args[0] if isinstance(args, list | tuple) and args else None

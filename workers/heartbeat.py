"""
What a worker says of itself every four seconds, for `breakwater queues`, `workers` and `doctor`.

In Redis, not by Celery's `inspect`: an answer to that takes a second to wait for, and a worker
that is busy (`solo`) gives none.
"""

import resource
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from celery.worker import WorkController

from breakwater.celery_app import app
from tasks.answering import runtime
from tasks.config.published_roles import to_publish
from tasks.operations.fleet import QUEUES, RUNNING
from workers.pools import name_of

KEPT = (
    "broker_transport", "worker_consumer", "task_acks_late", "task_reject_on_worker_lost",
    "result_backend_thread_safe", "result_expires",
)  # fmt: skip
OURS = {name: app.conf[name] for name in KEPT}
"""Settings of Celery's that delivery rests on, as they are before anybody else's code is read."""


def describe_worker(
    worker: WorkController, grace_s: float
) -> tuple[dict[str, Any], Iterable[str], str]:
    """
    Describe this worker, and name the queues it consumes and the roles it serves.

    Args:
        grace_s: How long its tasks have when it is stopped.
    """
    now, queues = runtime.runtime(), sorted(app.amqp.queues.consume_from)
    pool = name_of(worker.pool)
    return (
        {
            "name": worker.hostname,
            "pool": pool,
            "concurrency": worker.concurrency,
            "version": now.settings.version,
            QUEUES: queues,
            RUNNING: now.keeper.running_by_queue(),
            "grace_s": grace_s,
            "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            **({} if is_monkey_patched(pool) else {"unpatched": True}),
            **({"altered": changed} if (changed := changed_settings(worker)) else {}),
        },
        queues,
        to_publish(now.settings),
    )


def is_monkey_patched(pool: str) -> bool:
    """Tell whether a pool of greenlets has what it needs: sockets that let the others run."""
    monkey = sys.modules.get("gevent.monkey")
    return pool != "gevent" or bool(monkey and monkey.is_module_patched("socket"))


def changed_settings(worker: WorkController) -> Mapping[str, Any]:
    """Return those settings that are not ours any more, by somebody's code or option."""
    found = {name: app.conf[name] for name, ours in OURS.items() if app.conf[name] != ours}
    if worker.prefetch_multiplier != 1:
        found["prefetch_multiplier"] = worker.prefetch_multiplier
    return found

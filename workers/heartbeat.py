"""
Describe a worker every four seconds, for `breakwater queues`, `workers` and `doctor`.

The description is stored in Redis. Celery's `inspect` would take a second to wait for, and a busy
worker (`solo`) does not answer it.
"""

import resource
import sys
from collections.abc import Iterable

from celery.worker import WorkController

from breakwater.celery_app import app
from tasks.answering import runtime
from tasks.config.published_roles import to_publish
from tasks.operations.fleet import WorkerDescription
from workers.pools import name_of_pool

REQUIRED_SETTINGS = (
    "broker_transport", "worker_consumer", "task_acks_late", "task_reject_on_worker_lost",
    "result_backend_thread_safe", "result_expires",
)  # fmt: skip
"""Celery's settings that delivery relies on."""
OUR_VALUES = {name: app.conf[name] for name in REQUIRED_SETTINGS}
"""The values of those settings before another program's code is imported."""


def describe_worker(
    worker: WorkController, grace_s: float
) -> tuple[WorkerDescription, Iterable[str], str]:
    """
    Describe this worker.

    Args:
        grace_s: How long its tasks have when it is stopped.

    Returns:
        The description, the queues that it consumes, and the roles that it serves.
    """
    current = runtime.runtime()
    queues = sorted(app.amqp.queues.consume_from)
    pool = name_of_pool(worker.pool)
    description: WorkerDescription = {
        "name": worker.hostname,
        "pool": pool,
        "concurrency": worker.concurrency,
        "version": current.settings.version,
        "queues": queues,
        "running": current.keeper.running_by_queue(),
        "grace_s": grace_s,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
    if not is_monkey_patched(pool):
        description["unpatched"] = True
    if changed := changed_settings(worker):
        description["altered"] = changed
    return description, queues, to_publish(current.settings)


def is_monkey_patched(pool: str) -> bool:
    """Return whether a pool of greenlets has sockets that let other greenlets run."""
    monkey = sys.modules.get("gevent.monkey")
    return pool != "gevent" or bool(monkey and monkey.is_module_patched("socket"))


def changed_settings(worker: WorkController) -> dict[str, object]:
    """Return the required settings that other code or an option has changed, with their values."""
    changed: dict[str, object] = {
        name: app.conf[name] for name, ours in OUR_VALUES.items() if app.conf[name] != ours
    }
    if worker.prefetch_multiplier != 1:
        changed["prefetch_multiplier"] = worker.prefetch_multiplier
    return changed

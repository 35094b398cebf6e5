"""
What a worker says of itself every four seconds, for `breakwater queues`, `workers` and `doctor`.

In Redis, not by Celery's `inspect`: an answer to that takes a second to wait for, and a worker
that is busy (`solo`) gives none.
"""

from collections.abc import Iterable
from typing import Any

from celery.worker import WorkController

from tasks import runtime
from tasks.fleet import QUEUES, RUNNING
from tasks.queue import app

POOLS = {"thread": "threads"}
"""Where Celery's module is not called as its `--pool` is."""


def about(worker: WorkController) -> tuple[dict[str, Any], Iterable[str]]:
    """Describe this worker, and name the queues it consumes."""
    now, queues = runtime.runtime(), sorted(app.amqp.queues.consume_from)
    pool = type(worker.pool).__module__.rpartition(".")[2]
    return {
        "name": worker.hostname,
        "pool": POOLS.get(pool, pool),
        "concurrency": worker.concurrency,
        "version": now.settings.version,
        QUEUES: queues,
        RUNNING: now.keeper.running_by_queue(),
    }, queues

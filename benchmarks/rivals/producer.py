"""
Enqueue prompts for a rival and say when: `python -m benchmarks.rivals.producer KIND ROLE N [RATE]`.

Prints one JSON object: the id of each task, and the second at which it was enqueued.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable

from benchmarks.rivals.experiment import Experiment

Enqueue = Callable[[str, str], str]


def prompt(number: int) -> str:
    """Return a prompt; no two are alike."""
    return f"Write a haiku about the sea, and call it number {number}."


def main(kind: str, role: str, prompts: int, rate: float) -> None:
    """Enqueue them, `rate` a second."""
    enqueue = {"celery": celery, "breakwater": breakwater, "taskiq": taskiq}[kind]()
    started, enqueued = time.monotonic(), {}
    for number in range(prompts):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        at = time.time()
        enqueued[enqueue(role, prompt(number))] = at
    json.dump(enqueued, sys.stdout)


def celery() -> Enqueue:
    """Enqueue for any rival on bare Celery."""
    from celery import Celery

    url = Experiment.read().redis_url
    app = Celery("rival", broker=url, backend=url)
    return lambda role, text: str(app.send_task("ask", (role, text)).id)


def breakwater() -> Enqueue:
    """Enqueue for us."""
    from tasks import complete

    return lambda role, text: str(complete.delay(role, text).id)


def taskiq() -> Enqueue:
    """Enqueue for taskiq."""
    from benchmarks.rivals.taskiq_sdk import ask, broker

    loop = asyncio.new_event_loop()
    loop.run_until_complete(broker.startup())
    return lambda role, text: str(loop.run_until_complete(ask.kiq(role, text)).task_id)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float((*sys.argv, "inf")[4]))

"""
What `breakwater doctor` finds at workers and on their host: settings that are known to hurt.

What a worker says of itself is in `workers/heartbeat.py`; the figures are those of docs/scale.md.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from breakwater.redis.connection import SHARED_CONNECTIONS
from tasks import spool_file
from tasks.config import Settings
from tasks.operations.fleet import Worker
from workers.doctor.finding import Finding
from workers.shutdown import GRACE

OF_A_CHILD, OF_A_THREAD, OF_A_WORKER = 3, 1, 8
"""Connections to Redis: a prefork's child's, a thread's to the breakers, the worker's own."""
FILES_OF_A_CALL, FILES_OF_A_WORKER = 3, 100
MOST_CHILDREN = 32
"""Of a prefork: each has 40 to 100 MB."""
MOST_THREADS = 1_000
"""Above, Python's lock keeps a worker from 95 % of the ideal rate."""
MARGIN_S = 20
NAMED = 3
"""Workers of which the same is to be said are named up to this number."""

_Fault = tuple[str, str]
"""What was found, and what cures it."""

HARM: dict[str, tuple[Callable[[Any], bool], str]] = {
    "broker_transport": (lambda _: True, "a worker that is killed loses what it holds"),
    "worker_consumer": (lambda _: True, "a message that is none can end a worker"),
    "task_acks_late": (lambda on: not on, "a worker that is killed loses what it runs"),
    "task_reject_on_worker_lost": (lambda on: not on, "a child that is killed loses its task"),
    "result_backend_thread_safe": (lambda on: not on, "every task may open a connection"),
    "result_expires": (lambda after: not after, "results are kept for ever, and fill Redis"),
    "prefetch_multiplier": (lambda by: by != 1, "a worker holds prompts that others could answer"),
}
"""By a setting that is not ours: when it hurts, and how."""


def connections(workers: Iterable[Worker]) -> int:
    """Return how many connections these may open, all threads busy."""
    return sum(OF_A_WORKER + _of_calls(worker) for worker in workers)


def _of_calls(worker: Worker) -> int:
    if worker.pool == "prefork":
        return OF_A_CHILD * worker.concurrency
    shared = min(SHARED_CONNECTIONS, worker.concurrency)
    return shared + OF_A_THREAD * worker.concurrency


def of_workers(workers: Iterable[Worker], settings: Settings | None) -> Iterator[Finding]:
    """Say of workers what hurts; once of all of which the same is to be said."""
    longest_s = _longest_s(settings)
    found: defaultdict[_Fault, list[str]] = defaultdict(list)
    for worker in workers:
        for fault in (
            *_pool(worker), *_files(worker), *_grace(worker.grace_s, longest_s), *_altered(worker),
        ):  # fmt: skip
            found[fault].append(worker.name)
    for (what, step), names in found.items():
        yield Finding("warning", _named(names), what, step)


def _longest_s(settings: Settings | None) -> float:
    """Return how long a call may take at most; 0 if nobody knows."""
    return (
        max((p.timeout.total_s for p in settings.providers.values()), default=0) if settings else 0
    )


def _named(names: list[str]) -> str:
    shown, more = ", ".join(names[:NAMED]), len(names) - NAMED
    return f"worker {shown}" + (f" and {more} more" if more > 0 else "")


def _pool(worker: Worker) -> Iterator[_Fault]:
    if worker.is_unpatched:
        yield (
            "gevent without its patches: one call holds up all others",
            "celery -A workers worker --pool gevent, which patches before it imports anything",
        )
    if worker.pool == "solo":
        yield "the pool solo answers one prompt at a time", "--pool threads --concurrency 100"
    if worker.pool == "prefork" and worker.concurrency > MOST_CHILDREN:
        yield (
            f"{worker.concurrency} processes for as many calls",
            f"--pool threads --concurrency {worker.concurrency}: one process",
        )
    if worker.pool == "threads" and worker.concurrency > MOST_THREADS:
        yield (
            f"{worker.concurrency} threads in one process: it has one core's time",
            f"several workers of --concurrency {MOST_THREADS} at most",
        )


def _files(worker: Worker) -> Iterator[_Fault]:
    calls = 1 if worker.pool == "prefork" else worker.concurrency
    needed = FILES_OF_A_WORKER + FILES_OF_A_CALL * calls
    if worker.max_open_files is not None and worker.max_open_files < needed:
        yield (
            f"it may open {worker.max_open_files} files, and {calls} calls take up to {needed}",
            f"ulimit -n {needed * 2}, LimitNOFILE= of systemd, or --ulimit nofile of docker",
        )


def _grace(grace_s: float | None, longest_s: float) -> Iterator[_Fault]:
    if grace_s is not None and grace_s < longest_s:
        yield (
            f"--grace is {grace_s:g} s, and a call may take {longest_s:g} s: one that is cut off "
            f"when the worker stops is paid for twice",
            f"{GRACE}={longest_s + MARGIN_S:g}, and let what stops it wait longer than that",
        )


def _altered(worker: Worker) -> Iterator[_Fault]:
    for name, value in sorted(worker.changed_settings.items()):
        hurts, how = HARM.get(name, (None, ""))
        if hurts and hurts(value):
            yield f"{name} is {value!r}: {how}", f"leave {name} as it is"


def of_host(settings: Settings | None) -> Iterator[Finding]:
    """Look at this host and its environment, as a worker would find them."""
    if find_spec("hiredis") is None:
        what = "hiredis is missing: what Redis answers is read by Python code"
        yield Finding("warning", "packages", what, "pip install hiredis")
    given = os.environ.get(GRACE)
    with suppress(ValueError):
        for what, step in _grace(float(given) if given else None, _longest_s(settings)):
            yield Finding("warning", "environment", what, step)
    folder = spool_file.folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        what = f"{folder} cannot be written: answers that Redis does not take end with their worker"
        yield Finding("warning", "spool", what, "set SPOOL_DIR to a folder of the worker's own")

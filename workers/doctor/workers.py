"""
Check workers and their host for `breakwater doctor`: settings that are known to do harm.

A worker describes itself in `workers/heartbeat.py`. The figures are those of docs/scale.md.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec

from breakwater.redis.connection import SHARED_CONNECTIONS
from tasks import spool_file
from tasks.config import Settings
from tasks.operations.fleet import Worker
from workers.doctor.finding import Finding, warning
from workers.shutdown import GRACE_VARIABLE

CONNECTIONS_PER_CHILD, CONNECTIONS_PER_THREAD, CONNECTIONS_PER_WORKER = 3, 1, 8
"""Connections to Redis: of a prefork child, of a thread to the breakers, of the worker itself."""
FILES_PER_CALL, FILES_PER_WORKER = 3, 100
MAX_CHILDREN = 32
"""Of a prefork pool: each child has 40 to 100 MB."""
MAX_THREADS = 1_000
"""With more, Python's lock keeps a worker below 95 % of the ideal rate."""
GRACE_MARGIN_S = 20
MAX_NAMES = 3
"""How many workers with the same fault a line names."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A message about what is wrong, and the next step."""

    message: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Harm:
    """When the changed value of a Celery setting does harm, and which."""

    does_harm: Callable[[object], bool]
    consequence: str


def _any(_: object) -> bool:
    return True


def _falsy(value: object) -> bool:
    return not value


def _not_one(value: object) -> bool:
    return value != 1


HARMS = {
    "broker_transport": Harm(_any, "a worker that is killed loses what it holds"),
    "worker_consumer": Harm(_any, "an invalid message can end a worker"),
    "task_acks_late": Harm(_falsy, "a worker that is killed loses what it runs"),
    "task_reject_on_worker_lost": Harm(_falsy, "a child that is killed loses its task"),
    "result_backend_thread_safe": Harm(_falsy, "every task may open a connection"),
    "result_expires": Harm(_falsy, "results are kept for ever, and fill Redis"),
    "prefetch_multiplier": Harm(_not_one, "a worker holds prompts that others could answer"),
}
"""By the name of a setting whose value is not ours."""


def max_connections(workers: Iterable[Worker]) -> int:
    """Return how many connections these workers may open when all their threads are busy."""
    return sum(CONNECTIONS_PER_WORKER + _connections_of_calls(worker) for worker in workers)


def _connections_of_calls(worker: Worker) -> int:
    if worker.pool == "prefork":
        return CONNECTIONS_PER_CHILD * worker.concurrency
    shared = min(SHARED_CONNECTIONS, worker.concurrency)
    return shared + CONNECTIONS_PER_THREAD * worker.concurrency


def check_workers(workers: Iterable[Worker], settings: Settings | None) -> Iterator[Finding]:
    """Report settings of workers that do harm, once for all workers with the same fault."""
    longest_call_s = _longest_call_s(settings)
    names: defaultdict[Fault, list[str]] = defaultdict(list)
    for worker in workers:
        for fault in (
            *_check_pool(worker),
            *_check_files(worker),
            *_check_grace(worker.grace_s, longest_call_s),
            *_check_settings(worker),
        ):
            names[fault].append(worker.name)
    for fault, affected in names.items():
        yield warning(_list_workers(affected), fault.message, fault.next_step)


def _longest_call_s(settings: Settings | None) -> float:
    """Return how long a call may take at most; 0 if that is unknown."""
    if settings is None:
        return 0
    return max((each.timeout.total_s for each in settings.providers.values()), default=0)


def _list_workers(names: list[str]) -> str:
    listed = f"worker {', '.join(names[:MAX_NAMES])}"
    if len(names) > MAX_NAMES:
        return f"{listed} and {len(names) - MAX_NAMES} more"
    return listed


def _check_pool(worker: Worker) -> Iterator[Fault]:
    if worker.is_unpatched:
        yield Fault(
            "gevent without its patches: one call holds up all others",
            "celery -A workers worker --pool gevent, which patches before it imports anything",
        )
    if worker.pool == "solo":
        yield Fault(
            "the pool solo answers one prompt at a time", "--pool threads --concurrency 100"
        )
    if worker.pool == "prefork" and worker.concurrency > MAX_CHILDREN:
        yield Fault(
            f"{worker.concurrency} processes for as many calls",
            f"--pool threads --concurrency {worker.concurrency}: one process",
        )
    if worker.pool == "threads" and worker.concurrency > MAX_THREADS:
        yield Fault(
            f"{worker.concurrency} threads in one process: they share one core",
            f"several workers of --concurrency {MAX_THREADS} at most",
        )


def _check_files(worker: Worker) -> Iterator[Fault]:
    calls = worker.concurrency
    if worker.pool == "prefork":  # each child opens its own files
        calls = 1
    needed = FILES_PER_WORKER + FILES_PER_CALL * calls
    if worker.max_open_files is not None and worker.max_open_files < needed:
        yield Fault(
            f"it may open {worker.max_open_files} files, and {calls} calls take up to {needed}",
            f"ulimit -n {needed * 2}, LimitNOFILE= of systemd, or --ulimit nofile of docker",
        )


def _check_grace(grace_s: float | None, longest_call_s: float) -> Iterator[Fault]:
    if grace_s is not None and grace_s < longest_call_s:
        yield Fault(
            f"--grace is {grace_s:g} s, and a call may take {longest_call_s:g} s: a call that is "
            f"cut off when the worker stops is paid for twice",
            f"{GRACE_VARIABLE}={longest_call_s + GRACE_MARGIN_S:g}, and let the program that stops "
            f"the worker wait longer than that",
        )


def _check_settings(worker: Worker) -> Iterator[Fault]:
    for name, value in sorted(worker.changed_settings.items()):
        harm = HARMS.get(name)
        if harm and harm.does_harm(value):
            yield Fault(f"{name} is {value!r}: {harm.consequence}", f"leave {name} as it is")


def check_host(settings: Settings | None) -> Iterator[Finding]:
    """Check this host and its environment, as for a worker that is started here."""
    if find_spec("hiredis") is None:
        message = "hiredis is missing: Python code parses the replies of Redis"
        yield warning("packages", message, "pip install hiredis")
    with suppress(ValueError, KeyError):
        grace_s = float(os.environ[GRACE_VARIABLE])
        for fault in _check_grace(grace_s, _longest_call_s(settings)):
            yield warning("environment", fault.message, fault.next_step)
    folder = spool_file.folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        message = (
            f"{folder} cannot be written: an answer that Redis does not take is lost with its "
            f"worker"
        )
        yield warning("spool", message, "set SPOOL_DIR to a folder of the worker's own")

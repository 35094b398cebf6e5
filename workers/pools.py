"""
Refuse options of `celery worker` that the chosen pool cannot honour.

Celery 5.7 accepts them all. A pool that cannot honour an option ignores it (time limits, recycling)
or fails at each message (`--autoscale`). A solo worker holds prompts that it does not run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from celery.worker import WorkController
from celery.worker.consumer import Consumer
from celery.worker.control import control_command, nok, ok

from breakwater.celery_app import app

POOL_OF_MODULE = {"thread": "threads"}
"""Names of `--pool` that differ from the names of Celery's modules."""
POOL_OF_ALIAS = {"processes": "prefork"}
MAX_POOL_SIZE = 10_000
"""A control command cannot make a pool larger than this."""


class ControlState(Protocol):
    """The part of what Celery passes to a control command that is used here."""

    consumer: Consumer


@dataclass(frozen=True, slots=True)
class Ability:
    """An option, Celery's setting for it, the pools that honour it, and what to do instead."""

    option: str
    setting: str
    pools: frozenset[str]
    instead: str


ABILITIES = (
    Ability(
        "autoscale", "", frozenset({"prefork", "gevent", "threads"}), "it runs one task at a time",
    ),
    Ability(
        "time_limit", "task_time_limit", frozenset({"prefork", "gevent"}),
        "a provider's total_s in the roles file bounds each call, a role's deadline_s each task",
    ),
    Ability(
        "soft_time_limit", "task_soft_time_limit", frozenset({"prefork"}),
        "a provider's total_s in the roles file bounds each call, a role's deadline_s each task",
    ),
    Ability(
        "max_tasks_per_child", "worker_max_tasks_per_child", frozenset({"prefork"}),
        "only a prefork has children to recycle",
    ),
    Ability(
        "max_memory_per_child", "worker_max_memory_per_child", frozenset({"prefork"}),
        "only a prefork has children to recycle",
    ),
)  # fmt: skip
CELERY_POOLS = frozenset({"prefork", "gevent", "threads", "solo"})
RESIZABLE_POOLS = frozenset({"prefork", "gevent"})


def pool_name(options: Mapping[str, object]) -> str:
    """Return the name of the pool on the command line; prefork if the options name none."""
    return name_of_pool(options.get("pool") or options.get("pool_cls"))


def pool_faults(options: Mapping[str, object]) -> list[str]:
    """
    Return a sentence for each option that the chosen pool cannot honour.

    Args:
        options: The options of `celery worker`, by their Python names.
    """
    pool = pool_name(options)
    if pool not in CELERY_POOLS:  # another package's pool has its own options
        return []
    faults = [
        f"{_flag(option)}: --pool {pool} cannot do that "
        f"({' and '.join(sorted(option.pools))} can); {option.instead}"
        for option in ABILITIES
        if pool not in option.pools and _is_set(option, options)
    ]
    concurrency = options.get("concurrency") or app.conf.worker_concurrency
    if pool == "solo" and concurrency not in (None, 1, "1"):
        faults.append(
            f"--concurrency {concurrency}: --pool solo runs one task at a time, so it must be 1; "
            f"--pool threads runs many"
        )
    return faults


def fit_to_pool(worker: WorkController) -> None:
    """
    Make a worker take as many messages as its pool runs.

    A thread pool starts its threads when they are needed, so `--autoscale MAX,MIN` means the same
    as `--concurrency MAX`. A solo worker would hold one message per core.
    """
    pool, bounds = name_of_pool(worker.pool_cls), worker.options.get("autoscale")
    if pool == "threads" and bounds:
        if isinstance(bounds, str):
            bounds = bounds.split(",")
        worker.concurrency = int(bounds[0])
        worker.options["autoscale"] = None
    elif pool == "solo":
        worker.concurrency = 1


def _is_set(option: Ability, options: Mapping[str, object]) -> bool:
    return bool(options.get(option.option) or (option.setting and app.conf[option.setting]))


def _flag(option: Ability) -> str:
    return f"--{option.option.replace('_', '-')}"


def name_of_pool(pool: object) -> str:
    """Return the name that `--pool` has for a pool, its class or its name; None is prefork."""
    if pool is None:
        return "prefork"
    if isinstance(pool, str):
        return POOL_OF_ALIAS.get(pool, pool)
    if not isinstance(pool, type):
        pool = type(pool)
    module = pool.__module__.rpartition(".")[2]
    return POOL_OF_MODULE.get(module, module)


@control_command(args=[("n", int)], signature="[N=1]")
def pool_grow(state: ControlState, n: int = 1) -> dict[str, object]:
    """Let the pool run N more tasks at once."""
    if fault := _resize_fault(state, n):
        return refused(fault)
    pool = state.consumer.pool
    if pool.num_processes + n > MAX_POOL_SIZE:
        return refused(f"the pool would run {pool.num_processes + n}; at most {MAX_POOL_SIZE} can")
    pool.grow(n)
    state.consumer._update_prefetch_count(n)
    return dict(ok("pool will grow"))


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: ControlState, n: int = 1) -> dict[str, object]:
    """Let the pool run N fewer tasks at once; at least one remains."""
    if fault := _resize_fault(state, n):
        return refused(fault)
    pool = state.consumer.pool
    if pool.num_processes - n < 1:
        return refused(f"the pool runs {pool.num_processes}; one has to remain")
    try:
        pool.shrink(n)
    except ValueError:  # every child of a prefork pool is busy
        return refused("all of the pool's processes are busy; try again later")
    state.consumer._update_prefetch_count(-n)
    return dict(ok("pool will shrink"))


@control_command(args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(
    state: ControlState,
    max: int | None = None,  # noqa: A002 - Celery's name
    min: int | None = None,  # noqa: A002 - Celery's name
) -> dict[str, object]:
    """Change the bounds between which the pool grows and shrinks."""
    scaler = state.consumer.controller.autoscaler
    pool = name_of_pool(state.consumer.pool)
    if not scaler and pool in CELERY_POOLS - RESIZABLE_POOLS:
        return refused(f"--pool {pool} has a fixed size; start the worker with another one")
    if not scaler:
        return refused("this worker was not started with --autoscale")
    highest, lowest = max, min
    if highest is None:
        highest = scaler.max_concurrency
    if lowest is None:
        lowest = scaler.min_concurrency
    if not (_is_count(highest) and _is_count(lowest) and lowest <= highest):
        return refused(f"max and min must be whole numbers with 1 <= min <= max <= {MAX_POOL_SIZE}")
    highest, lowest = scaler.update(highest, lowest)
    return dict(ok(f"autoscale now max={highest} min={lowest}"))


def _resize_fault(state: ControlState, n: object) -> str:
    """Return why the pool cannot be resized by N; empty if it can."""
    pool = name_of_pool(state.consumer.pool)
    if state.consumer.controller.autoscaler:
        return (
            "the worker scales itself (--autoscale); use the command autoscale to change its bounds"
        )
    if pool in CELERY_POOLS - RESIZABLE_POOLS:
        return f"--pool {pool} has a fixed size; start the worker with another --concurrency"
    if not _is_count(n):
        return f"{n!r} is not a whole number from 1 to {MAX_POOL_SIZE}"
    return ""


def _is_count(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MAX_POOL_SIZE


def refused(why: str) -> dict[str, object]:
    """Return the reply to a command that was refused."""
    return dict(nok(why))

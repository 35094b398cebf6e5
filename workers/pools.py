"""
What each pool can do: options of `celery worker` that it cannot honour are refused at the start.

Celery 5.7 takes them all. A pool that cannot do such a thing ignores it (time limits, recycling) or
fails at each message (`--autoscale`); a solo worker holds prompts that it does not run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery.worker.control import control_command, nok, ok

from breakwater.celery_app import app

POOLS = {"thread": "threads"}
"""Where Celery's module is not called as its `--pool` is."""
MOST_AT_ONCE = 10_000
"""A command cannot make a pool larger than this."""


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
KNOWN = frozenset({"prefork", "gevent", "threads", "solo"})
CAN_RESIZE = frozenset({"prefork", "gevent"})


def pool_name(options: Mapping[str, Any]) -> str:
    """Return what the pool is called on the command line; prefork if none is named."""
    return name_of(options.get("pool") or options.get("pool_cls"))


def pool_faults(options: Mapping[str, Any]) -> list[str]:
    """
    Return a sentence for each option that the chosen pool cannot honour.

    Args:
        options: Of `celery worker`, by their names in Python.
    """
    pool = pool_name(options)
    if pool not in KNOWN:  # a pool of somebody else's knows its own options
        return []
    faults = [
        f"{_written(option)}: --pool {pool} cannot do that "
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


def fit(worker: Any) -> None:
    """
    Let a worker take as many messages as its pool runs.

    A thread pool starts its threads as they are needed, so `--autoscale MAX,MIN` is for it what
    `--concurrency MAX` is. A solo worker would hold a message for each core.
    """
    pool, scale = name_of(worker.pool_cls), worker.options.get("autoscale")
    if pool == "threads" and scale:
        most = scale.partition(",")[0] if isinstance(scale, str) else scale[0]
        worker.concurrency = int(most)
        worker.options["autoscale"] = None
    elif pool == "solo":
        worker.concurrency = 1


def _is_set(option: Ability, options: Mapping[str, Any]) -> bool:
    return bool(options.get(option.option) or (option.setting and app.conf[option.setting]))


def _written(option: Ability) -> str:
    return f"--{option.option.replace('_', '-')}"


def name_of(pool: Any) -> str:
    """Return what a pool, its class or its name is called on the command line."""
    if pool is None or isinstance(pool, str):
        return {"processes": "prefork", None: "prefork"}.get(pool, str(pool))
    kind = pool if isinstance(pool, type) else type(pool)
    name = kind.__module__.rpartition(".")[2]
    return POOLS.get(name, name)


@control_command(args=[("n", int)], signature="[N=1]")
def pool_grow(state: Any, n: Any = 1) -> dict[str, Any]:
    """Let the pool run so many more tasks at once."""
    if fault := _resize_fault(state, n):
        return refused(fault)
    pool = state.consumer.pool
    if pool.num_processes + n > MOST_AT_ONCE:
        return refused(f"the pool would run {pool.num_processes + n}; at most {MOST_AT_ONCE} can")
    pool.grow(n)
    state.consumer._update_prefetch_count(n)
    return dict(ok("pool will grow"))


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: Any, n: Any = 1) -> dict[str, Any]:
    """Let the pool run so many fewer tasks at once; at least one stays."""
    if fault := _resize_fault(state, n):
        return refused(fault)
    pool = state.consumer.pool
    if pool.num_processes - n < 1:
        return refused(f"the pool runs {pool.num_processes}; one has to stay")
    try:
        pool.shrink(n)
    except ValueError:  # a prefork's children are all busy
        return refused("all of the pool's processes are busy; try again later")
    state.consumer._update_prefetch_count(-n)
    return dict(ok("pool will shrink"))


@control_command(args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(state: Any, max: Any = None, min: Any = None) -> dict[str, Any]:  # noqa: A002 - Celery's names
    """Change the bounds between which the pool grows and shrinks."""
    scaler = state.consumer.controller.autoscaler
    pool = name_of(state.consumer.pool)
    if not scaler and pool in KNOWN - CAN_RESIZE:
        return refused(f"--pool {pool} has a fixed size; start the worker with another one")
    if not scaler:
        return refused("this worker was not started with --autoscale")
    most = scaler.max_concurrency if max is None else max
    fewest = scaler.min_concurrency if min is None else min
    if not (_is_count(most) and _is_count(fewest) and 1 <= fewest <= most <= MOST_AT_ONCE):
        return refused(f"max and min must be whole numbers with 1 <= min <= max <= {MOST_AT_ONCE}")
    most, fewest = scaler.update(most, fewest)
    return dict(ok(f"autoscale now max={most} min={fewest}"))


def _resize_fault(state: Any, n: Any) -> str:
    pool = name_of(state.consumer.pool)
    if state.consumer.controller.autoscaler:
        return "the worker scales itself (--autoscale); change its bounds by autoscale instead"
    if pool in KNOWN - CAN_RESIZE:
        return f"--pool {pool} has a fixed size; start the worker with another --concurrency"
    if not _is_count(n):
        return f"{n!r} is not a whole number from 1 to {MOST_AT_ONCE}"
    return ""


def _is_count(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MOST_AT_ONCE


def refused(why: str) -> dict[str, Any]:
    """Return the reply to a command that was refused."""
    return dict(nok(why))

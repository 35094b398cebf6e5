"""
The registry of the functions that run the tasks of this package; only workers have them.

A client enqueues `complete` and `workflow`; a worker registers their implementations here. If
Celery runs tasks in the process that enqueues them (`task_always_eager`), the entry points of
`breakwater-llm[worker]` provide the implementations.
"""

from collections.abc import Callable
from importlib.metadata import entry_points

from breakwater.errors import ConfigError

GROUP = "breakwater.executors"
"""The group of entry points; each has the name of a task, and its module installs the executor."""

Executor = Callable[..., object]
"""A function that runs a task; it takes the arguments that the task passes on."""

_installed: dict[str, Executor] = {}


def install(task: str, execute: Executor) -> None:
    """Register the function that runs the task of this name in this process."""
    _installed[task] = execute


def executor_of(task: str) -> Executor:
    """
    Return the function that runs the task of this name.

    Raises:
        ConfigError: The worker part is not installed, or another package hides a module of it.
    """
    missing = ""
    if task not in _installed:
        for point in entry_points(group=GROUP, name=task):
            try:
                point.load()
            except ModuleNotFoundError as error:
                missing = f" ({error})"
    if task not in _installed:
        raise ConfigError(
            f"task {task!r} cannot run in this process, which can only enqueue it{missing}; run "
            f"it by a worker; or install the worker part, pip install 'breakwater-llm[worker]', "
            f"where no package of yours is called tasks, workers or breaker"
        )
    return _installed[task]

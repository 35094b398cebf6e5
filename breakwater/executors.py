"""
What runs the tasks of this package: in a worker alone.

A client enqueues `complete` and `workflow`; their bodies are the worker's, which installs them
here. Where Celery runs tasks in the process that enqueues them (`task_always_eager`), the bodies
are found by the entry points of `breakwater-llm[worker]`.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from breakwater.errors import ConfigError

GROUP = "breakwater.executors"
"""Entry points whose modules install an executor, each under the name of its task."""

_installed: dict[str, Callable[..., Any]] = {}


def install(task: str, execute: Callable[..., Any]) -> None:
    """Set what runs the task of this name in this process."""
    _installed[task] = execute


def executor_of(task: str) -> Callable[..., Any]:
    """
    Return what runs the task of this name.

    Raises:
        ConfigError: This process has no worker part, or another package hides a part of it.
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

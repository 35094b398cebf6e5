"""
Messages that name a task which this app does not have: left in their queue, as they are.

They are another program's, or a newer producer's: another worker may have the task. They are not
dead letters, and their callers hear nothing from us. A worker recognises them before anything of
theirs is decoded or checked, as other programs write them in their own way.
"""

import hashlib
import re
from typing import Any

import structlog
from redis.exceptions import ConnectionError as Away
from redis.exceptions import RedisError

from breakwater.celery_app import app
from tasks.delivery.delivery_store import DeliveryStore

PASSED_OVER_MS = 30_000
"""How long workers with the same tasks pass over a message that they do not have the task of."""
CELERY_PREFIX = "celery."
"""How the names of Celery's own tasks begin."""
LOGGABLE_NAME = re.compile(r"[\w.:/@-]{1,200}")
"""Names that are shown; what a message calls its task may be anything."""
MAX_LOGGED = 100
"""Names of which the log speaks, once each."""

_log = structlog.get_logger("breakwater")
_named: set[str] = set()
_digests: dict[int, str] = {}


def task_digest() -> str:
    """Return what differs between workers with different tasks."""
    number = len(app.tasks)
    if number not in _digests:
        text = ",".join(sorted(app.tasks))
        _digests[number] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:12]
    return _digests[number]


def foreign_task(headers: Any, body: Any = None) -> str:
    """
    Return the name of the task if this app does not have it; empty if it has, or there is none.

    Args:
        headers: The message's; those of Celery's protocol 2 name the task.
        body: Decoded; that of protocol 1 names it.
    """
    for fields in (headers, body):
        name = fields.get("task") if isinstance(fields, dict) else None
        if isinstance(name, str) and name:
            return "" if name in app.tasks else name
    return ""


def names_none_of_ours(body: Any) -> bool:
    """Tell whether the arguments of one of Celery's own tasks name no task of this app."""
    return not _mentions(body)


def leave_in_queue(store: DeliveryStore, tag: str, name: str) -> None:
    """
    Put a taken message back for others, and say so once for each task.

    Raises:
        redis.ConnectionError: Redis did not take it; the message goes back when its take lapses.
    """
    name = name if LOGGABLE_NAME.fullmatch(name) else "?"
    try:
        store.leave_to_others(tag, task_digest(), PASSED_OVER_MS, name)
    except RedisError as error:
        raise Away(f"{type(error).__name__}: {error}") from error
    if name not in _named and len(_named) < MAX_LOGGED:
        _named.add(name)
        _log.warning(
            "task.not_ours",
            task=name,
            what="no task of this app; the message stays in its queue for the program that has it",
            next="give this fleet its own BREAKWATER_PREFIX, BREAKWATER_QUEUE or database",
        )


def _mentions(value: Any) -> bool:
    """Tell whether a task of ours is named anywhere in a body."""
    level: list[Any] = [value]
    while level:
        each = level.pop()
        if isinstance(each, dict):
            name = each.get("task")
            if isinstance(name, str) and name in app.tasks and not name.startswith(CELERY_PREFIX):
                return True
            level += each.values()
        elif isinstance(each, list | tuple):
            level += each
    return False

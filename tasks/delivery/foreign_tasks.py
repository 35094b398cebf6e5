"""
Messages that name a task which this app does not have: they stay in their queue, as they are.

Such a message belongs to another program, or to a newer producer: another worker may have its task.
It is not a dead letter, and its caller gets no result from this worker. The worker recognises it
before it decodes or checks anything else, since other programs have formats of their own.
"""

import hashlib
import re
from typing import Any, TypeAlias

import structlog
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

from breakwater.celery_app import app
from tasks.delivery.delivery_store import DeliveryStore

Json: TypeAlias = Any
"""A value that a message contains; it is not checked yet."""

PASSED_OVER_MS = 30_000
"""How long workers with the same tasks pass over a message whose task they do not have."""
CELERY_PREFIX = "celery."
"""The beginning of the names of Celery's own tasks."""
LOGGABLE_NAME = re.compile(r"[\w.:/@-]{1,200}")
"""Task names that are logged; a message may contain any text."""
MAX_LOGGED = 100
"""How many names are logged, once each."""

_log = structlog.get_logger("breakwater")
_named: set[str] = set()
_digests: dict[int, str] = {}


def task_digest() -> str:
    """Return a digest of the tasks of this app; workers with other tasks have another one."""
    number = len(app.tasks)
    if number not in _digests:
        text = ",".join(sorted(app.tasks))
        _digests[number] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:12]
    return _digests[number]


def foreign_task(headers: Json, body: Json = None) -> str:
    """
    Return the name of the task if this app does not have it; else an empty text.

    Args:
        headers: The message's; in Celery's protocol 2 they name the task.
        body: The decoded body; in protocol 1 it names the task.
    """
    for fields in (headers, body):
        name = fields.get("task") if isinstance(fields, dict) else None
        if isinstance(name, str) and name:
            if name in app.tasks:
                return ""
            return name
    return ""


def names_none_of_ours(body: Json) -> bool:
    """Return whether the arguments of one of Celery's own tasks name no task of this app."""
    return not _mentions(body)


def leave_in_queue(store: DeliveryStore, tag: str, name: str) -> None:
    """
    Return a taken message to its queue, and log that once for each task.

    Raises:
        redis.ConnectionError: Redis is unavailable; the message returns when its lease expires.
    """
    if not LOGGABLE_NAME.fullmatch(name):
        name = "?"
    try:
        store.leave_to_others(tag, task_digest(), PASSED_OVER_MS, name)
    except RedisError as error:
        raise NotConnected(f"{type(error).__name__}: {error}") from error
    if name not in _named and len(_named) < MAX_LOGGED:
        _named.add(name)
        _log.warning(
            "task.not_ours",
            task=name,
            what="no task of this app; the message stays in its queue for the program that has it",
            next="give this fleet its own BREAKWATER_PREFIX, BREAKWATER_QUEUE or database",
        )


def _mentions(value: Json) -> bool:
    """Return whether a body names a task of this app anywhere."""
    level: list[Json] = [value]
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

"""
Check Celery's own options of a call (`apply_async`, `.set()`, signatures) before it is enqueued.

Celery ignores an option that it does not know, and notices a value of the wrong type only in the
worker, where no error reaches the caller. So each option is checked before anything is queued.

Source: docs.celeryq.dev, "Calling Tasks" and `Task.apply_async`, and the code of Celery 5.7.
"""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Self, cast

from celery.canvas import Signature
from celery.utils.time import maybe_iso8601
from kombu.entity import Queue

from breakwater.calls.options import CELERY_OPTIONS, OPTIONS
from breakwater.errors import InvalidOption, nearest

MAX_ID = 255
"""Characters of a task id; a worker accepts no longer one."""
COMPRESSIONS = ("gzip", "zlib", "application/x-gzip")
"""Compressions that a worker decompresses; it limits the size of the result."""
ARGUMENTS = ("role", "prompt")

Value = Any
"""The value of an option; the check decides on its type."""
Check = Callable[[Value], bool]


def _number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _moment(value: Value) -> bool:
    if not isinstance(value, str):
        return isinstance(value, datetime)
    try:
        return bool(maybe_iso8601(value))
    except ValueError:
        return False


def _priority(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _text(value: Value) -> bool:
    return isinstance(value, str)


def _flag(value: Value) -> bool:
    return isinstance(value, bool)


def _signatures(value: Value) -> bool:
    several = value if _sequence(value) else [value]
    return all(isinstance(each, dict) for each in several)


def _sequence(value: Value) -> bool:
    return isinstance(value, list | tuple)


KNOWN: Mapping[str, tuple[Check, str]] = {
    "countdown": (_number, "a number of seconds"),
    "eta": (_moment, "a datetime"),
    "expires": (lambda due: _number(due) or _moment(due), "a number of seconds or a datetime"),
    "priority": (_priority, "a whole number from 0 to 9"),
    "queue": (lambda value: isinstance(value, str | Queue) and bool(value), "the name of a queue"),
    "headers": (lambda value: isinstance(value, Mapping), "a dict"),
    "link": (_signatures, "a signature, or a list of them"),
    "link_error": (_signatures, "a signature, or a list of them"),
    "time_limit": (_number, "a number of seconds"),
    "soft_time_limit": (_number, "a number of seconds"),
    "retry": (_flag, "true or false"),
    "ignore_result": (lambda value: isinstance(value, bool | int), "true or false"),
    "shadow": (_text, "a string"),
    "serializer": (lambda value: value == "json", "'json'; workers take nothing else"),
    "compression": (lambda value: value in COMPRESSIONS, f"one of {', '.join(COMPRESSIONS)}"),
}  # fmt: skip
"""The options that callers use: a check, and what the value must be."""
OTHERS = frozenset({
    "task_id", "producer", "connection", "publisher", "router", "retry_policy", "retries",
    "add_to_parent", "exchange", "exchange_type", "routing_key", "reply_to", "origin", "root_id",
    "parent_id", "group_id", "group", "group_index", "chord", "chain", "route_name", "task_type",
    "delivery_mode", "mandatory", "immediate", "expiration", "argsrepr", "kwargsrepr", "timeout",
    "confirm_timeout", "declare", "correlation_id", "content_type", "content_encoding", "stamps",
    "stamped_headers", "replaced_task_nesting", "message_id", "app_id", "user_id", "timestamp",
    "type", "hostname", "logfile", "loglevel", "immutable", "app", "subtask_type", "throw",
})  # fmt: skip
"""Other options of Celery and kombu; canvases set most of them."""
INSTEAD = {
    "apply_async": "apply_async((role, prompt), {{{name!r}: …}})",
    "set": "complete.s(role, prompt, {name}=…)",
}


def check_task_id(task_id: object) -> None:
    """
    Check a task id that a caller has chosen.

    Raises:
        InvalidOption: The id is not a string of 1 to 255 printable characters.
    """
    if not isinstance(task_id, str):
        shown = f"a {type(task_id).__name__}"
    elif not task_id:
        shown = "an empty string"
    elif len(task_id) > MAX_ID:
        shown = f"a string of {len(task_id)} characters"
    elif not task_id.isprintable():
        shown = "a string with control characters, or others that cannot be shown"
    else:
        return
    raise InvalidOption(
        f"task_id is {shown}; it must be a string of 1 to {MAX_ID} printable characters"
    )


def check(options: Mapping[str, Value], way: str) -> None:
    """
    Check Celery's options of one call.

    Args:
        way: The method that takes them, `apply_async` or `set`; errors name the right place.

    Raises:
        InvalidOption: One or more do not fit; the message lists every fault.
    """
    faults = []
    stamps = options.get("stamped_headers") or ()
    for name, value in options.items():
        if name in OPTIONS or name in ARGUMENTS:
            place = INSTEAD[way].format(name=name)
            faults.append(f"{name} is an option of complete, not of {way}(): write {place}")
        elif name in KNOWN:
            fits, wanted = KNOWN[name]
            if value is not None and not fits(value):
                faults.append(f"{name} is {_shown(value)}; it must be {wanted}")
        elif name not in OTHERS and name not in stamps:
            near = nearest(name, [*KNOWN, *OTHERS, *OPTIONS])
            faults.append(f"unknown option {name[:40]!r}{near}")
    if faults:
        raise InvalidOption("; ".join(faults), {"faults": faults})
    if options.get("task_id") is not None:
        check_task_id(options["task_id"])


def check_keyword_names(kwargs: Mapping[str, object]) -> None:
    """
    Check the names of a signature's keyword arguments; the call checks their values.

    Raises:
        InvalidOption: A name is not an option of `complete`; if it is Celery's, the message says
            where it belongs.
    """
    faults = []
    for name in map(str, kwargs):
        if name in CELERY_OPTIONS:
            faults.append(f"{name} is an option of Celery: write complete.s(…).set({name}=…)")
        elif name not in OPTIONS and name not in ARGUMENTS:
            faults.append(f"unknown option {name[:40]!r}{nearest(name, OPTIONS)}")
    if faults:
        raise InvalidOption("; ".join(faults), {"faults": faults})


def check_follower_ids(task: str, options: Mapping[str, Value]) -> None:
    """
    Check the ids of the tasks that a worker enqueues after a task: chains, chords, links.

    Raises:
        InvalidOption: An id is not valid.
    """
    followers: list[Value] = [
        options.get(name) for name in ("link", "link_error", "chain", "chord")
    ]
    while followers:
        each = followers.pop()
        if _sequence(each):
            followers += each
        elif isinstance(each, dict):
            own = each.get("options") or {}
            if (task_id := own.get("task_id")) is not None:
                check_task_id(task_id)
            if each.get("task") == task:
                _check_misplaced(own)
            followers += [own.get(name) for name in ("link", "link_error", "chord")]
            inner = each.get("kwargs") or {}
            if each.get("subtask_type"):  # the members of a group, a chain or a chord
                followers += [inner.get(name) for name in ("tasks", "header", "body")]


def _check_misplaced(options: Mapping[str, Value]) -> None:
    ours = {name: value for name, value in options.items() if name in OPTIONS}
    if ours:
        check(ours, "set")


def _shown(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)[:20]
    if isinstance(value, str):
        return repr(value[:20])
    return f"a {type(value).__name__}"


class CheckedSignature(Signature):  # type: ignore[misc]
    """A signature of `complete`; it refuses an option in the wrong place immediately."""

    def set(self, immutable: bool | None = None, **options: object) -> Self:
        """Check Celery's options, and set them as its `Signature.set` does."""
        check(options, "set")
        return cast("Self", super().set(immutable=immutable, **options))

    def clone(self, *args: object, **kwargs: object) -> "CheckedSignature":
        """Copy the signature; Celery's method returns one without checks."""
        return CheckedSignature.of(super().clone(*args, **kwargs))

    @classmethod
    def of(cls, plain: Signature) -> "CheckedSignature":
        """Convert one of Celery's signatures."""
        made = cls(plain, app=plain._app)
        made._type = plain._type
        return made

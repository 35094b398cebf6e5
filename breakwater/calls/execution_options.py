"""
Celery's own options of a call (`apply_async`, `.set()`, signatures), checked where it is enqueued.

Celery drops an option that it does not know, and finds one of a wrong type where nobody can answer
the caller any more: in a worker. So each is checked before anything is queued.

Source: docs.celeryq.dev, "Calling Tasks" and `Task.apply_async`, and the code of Celery 5.7.
"""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from celery.canvas import Signature
from celery.utils.time import maybe_iso8601
from kombu.entity import Queue

from breakwater.calls.options import CELERY_OPTIONS, OPTIONS
from breakwater.errors import InvalidOption, nearest

MAX_ID = 255
"""Characters of a task id; a worker takes no longer one."""
COMPRESSIONS = ("gzip", "zlib", "application/x-gzip")
"""Compressions that a worker undoes; it has a bound for them."""
ARGUMENTS = ("role", "prompt")

Check = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _moment(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, datetime)
    try:
        return bool(maybe_iso8601(value))
    except ValueError:
        return False


def _priority(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _signatures(value: Any) -> bool:
    return all(isinstance(each, dict) for each in (value if _sequence(value) else [value]))


def _sequence(value: Any) -> bool:
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
"""Of those that callers use: what each must be."""
OTHERS = frozenset({
    "task_id", "producer", "connection", "publisher", "router", "retry_policy", "retries",
    "add_to_parent", "exchange", "exchange_type", "routing_key", "reply_to", "origin", "root_id",
    "parent_id", "group_id", "group", "group_index", "chord", "chain", "route_name", "task_type",
    "delivery_mode", "mandatory", "immediate", "expiration", "argsrepr", "kwargsrepr", "timeout",
    "confirm_timeout", "declare", "correlation_id", "content_type", "content_encoding", "stamps",
    "stamped_headers", "replaced_task_nesting", "message_id", "app_id", "user_id", "timestamp",
    "type", "hostname", "logfile", "loglevel", "immutable", "app", "subtask_type", "throw",
})  # fmt: skip
"""Celery's and kombu's other ones; canvases set most of them."""
INSTEAD = {
    "apply_async": "apply_async((role, prompt), {{{name!r}: …}})",
    "set": "complete.s(role, prompt, {name}=…)",
}


def check_task_id(task_id: object) -> None:
    """
    Check an id that a caller has chosen.

    Raises:
        InvalidOption: It is not a string of 1 to 255 printable characters.
    """
    if not isinstance(task_id, str):
        what = f"a {type(task_id).__name__}"
    elif not task_id:
        what = "an empty string"
    elif len(task_id) > MAX_ID:
        what = f"a string of {len(task_id)} characters"
    elif not task_id.isprintable():
        what = "a string with control characters, or others that cannot be shown"
    else:
        return
    raise InvalidOption(
        f"task_id is {what}; it must be a string of 1 to {MAX_ID} printable characters"
    )


def check(options: Mapping[str, Any], way: str) -> None:
    """
    Check Celery's options of one call.

    Args:
        way: How they were given, `apply_async` or `set`; the error names the right place.

    Raises:
        InvalidOption: Listing every fault.
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


def check_keyword_names(kwargs: Mapping[str, Any]) -> None:
    """
    Check the names of a signature's keyword arguments; their values are checked with its call.

    Raises:
        InvalidOption: One is not an option of `complete`; of Celery's the right place is named.
    """
    faults = []
    for name in map(str, kwargs):
        if name in CELERY_OPTIONS:
            faults.append(f"{name} is an option of Celery's: write complete.s(…).set({name}=…)")
        elif name not in OPTIONS and name not in ARGUMENTS:
            faults.append(f"unknown option {name[:40]!r}{nearest(name, OPTIONS)}")
    if faults:
        raise InvalidOption("; ".join(faults), {"faults": faults})


def check_follower_ids(task: str, options: Mapping[str, Any]) -> None:
    """
    Check the ids of what is enqueued behind a task by a worker: chains, chords, links.

    Raises:
        InvalidOption: One of them is not an id.
    """
    behind: list[Any] = [options.get(name) for name in ("link", "link_error", "chain", "chord")]
    while behind:
        each = behind.pop()
        if _sequence(each):
            behind += each
        elif isinstance(each, dict):
            own = each.get("options") or {}
            if (task_id := own.get("task_id")) is not None:
                check_task_id(task_id)
            if each.get("task") == task:
                _check_misplaced(own)
            behind += [own.get(name) for name in ("link", "link_error", "chord")]
            inner = each.get("kwargs") or {}
            if each.get("subtask_type"):  # of a group, a chain or a chord its members
                behind += [inner.get(name) for name in ("tasks", "header", "body")]


def _check_misplaced(options: Mapping[str, Any]) -> None:
    ours = {name: value for name, value in options.items() if name in OPTIONS}
    if ours:
        check(ours, "set")


def _shown(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)[:20]
    return f"{value[:20]!r}" if isinstance(value, str) else f"a {type(value).__name__}"


class CheckedSignature(Signature):  # type: ignore[misc]
    """A signature of `complete` that refuses an option in the wrong place at once."""

    def set(self, immutable: bool | None = None, **options: Any) -> "CheckedSignature":
        """Set Celery's options, as its `Signature.set` does, once they are checked."""
        check(options, "set")
        changed: CheckedSignature = super().set(immutable=immutable, **options)
        return changed

    def clone(self, *args: Any, **kwargs: Any) -> "CheckedSignature":
        """Copy it; Celery would return a plain signature."""
        return CheckedSignature.of(super().clone(*args, **kwargs))

    @classmethod
    def of(cls, plain: Signature) -> "CheckedSignature":
        """Make one of Celery's."""
        made = cls(plain, app=plain._app)
        made._type = plain._type
        return made

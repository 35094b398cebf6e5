"""
Checks of a message before Celery reads it.

Celery and kombu trust the messages that they take from a list. A body that is not base64, a word as
a time limit, or a header called `update` raises an exception in the worker's event loop, which ends
the worker; and their handlers write the whole body to the log. So this module checks each message
completely, and an invalid one becomes a dead letter. The formats are Celery's task protocols 2 and
1.

Source: docs.celeryq.dev, "Message Protocol", and the code of Celery 5.7 that reads it.
"""

import json
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import structlog
from celery import states
from celery.app.task import Context
from celery.canvas import Signature
from celery.utils.time import maybe_iso8601
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

from breakwater.celery_app import app
from breakwater.errors import BreakwaterError, ConfigError, InvalidMessage
from breakwater.messaging import times
from breakwater.redis import encryption
from tasks.delivery.delivery_store import MAX_MESSAGE_BYTES, DeliveryStore

Json: TypeAlias = Any
"""A value that a message contains; the checks here find out which."""

MAX_DEPTH = 100
"""How deep a message may nest; a deeper one cannot be pickled for a child, or shown."""
MAX_NAME = 255
"""Characters of an id or a name at most."""
MAX_ANSWERED = 4096
"""Characters of a longer id, under which its refusal can still be written as a result."""
MAX_NUMBER = 2**53
"""JSON's numbers above this are not exact, and sums of them overflow."""
YEARS = range(1971, 9999)
"""Datetimes outside these years cannot be moved to another time zone."""
MAY_INFLATE = {"gzip", "zlib", "application/x-gzip"}
"""Compressions with a bounded decompression, by kombu's names; kombu uses zlib for all three."""

_log = structlog.get_logger("breakwater")

Check = Callable[[Json], bool]


def _name(value: Json) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def _text(value: Json) -> bool:
    return isinstance(value, str)


def _whole(value: Json) -> bool:
    return isinstance(value, int) and 0 <= value <= MAX_NUMBER


def _span(value: Json) -> bool:
    return _whole(value) and value <= times.LONGEST_MS


def _number(value: Json) -> bool:
    return isinstance(value, int | float) and 0 <= value <= MAX_NUMBER


def _flag(value: Json) -> bool:
    return isinstance(value, bool)


def _object(value: Json) -> bool:
    return isinstance(value, dict)


def _moment(value: Json) -> bool:
    try:
        return isinstance(value, str) and maybe_iso8601(value).year in YEARS
    except (AttributeError, ValueError, OverflowError):
        return False


def _limits(value: Json) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(each is None or _number(each) for each in value)
    )


def _names(value: Json) -> bool:
    return isinstance(value, list) and all(_name(each) for each in value)


def _signature(value: Json) -> bool:
    shape = {"task": _name, "args": _list, "kwargs": _object, "options": _object}
    return (
        isinstance(value, dict)
        and all(fits(value.get(name)) for name, fits in shape.items())
        and value.get("subtask_type") in [None, *Signature.TYPES]
        and (value["options"].get("task_id") is None or _name(value["options"]["task_id"]))
    )


def _signatures(value: Json) -> bool:
    return isinstance(value, list) and all(_signature(each) for each in value)


def _list(value: Json) -> bool:
    return isinstance(value, list)


CANVAS: Mapping[str, Check] = {
    "callbacks": _signatures, "errbacks": _signatures, "chain": _signatures, "chord": _signature,
}  # fmt: skip
FIELDS: Mapping[str, Check] = {
    "id": _name, "task": _name, "root_id": _name, "parent_id": _name, "group": _name,
    "shadow": _name, "lang": _text, "origin": _text, "meth": _text, "argsrepr": _text,
    "kwargsrepr": _text, "eta": _moment, "expires": _moment, "retries": _whole,
    "group_index": _whole, "replaced_task_nesting": _whole, "timelimit": _limits,
    "ignore_result": _flag, "stamps": _object, "stamped_headers": _names, "compression": _text,
}  # fmt: skip
"""Checks of protocol 2's headers; null stands for Celery's default. Others are the caller's own."""
FIELDS_1: Mapping[str, Check] = {
    **FIELDS, **CANVAS, "taskset": _name, "utc": _flag, "args": _list, "kwargs": _object,
}  # fmt: skip
PROPERTIES: Mapping[str, Check] = {
    "correlation_id": _text, "reply_to": _text, "priority": _whole, "delivery_info": _object,
    "delivery_mode": _whole, "body_encoding": _text, "type": _text,
}  # fmt: skip
OWN: Mapping[str, Check] = {
    times.HEADER: lambda value: (
        _object(value)
        and _whole(value.get(times.ENQUEUED, 0))
        and all(_span(value.get(name, 0)) for name in (times.COUNTDOWN, times.EXPIRES))
    )
}
RESERVED = frozenset(dir(Context)) | {"settled"}
"""A header with such a name would replace a part of the task's request."""


def read(raw: bytes) -> dict[str, Json]:
    """
    Parse a message from its list.

    Raises:
        InvalidMessage: It is not a JSON object.
    """
    try:
        payload = json.loads(raw)
    except (ValueError, RecursionError):
        raise InvalidMessage("the message is not JSON") from None
    if not isinstance(payload, dict):
        raise InvalidMessage("the message is not a JSON object")
    return payload


def check(payload: dict[str, Json]) -> None:
    """
    Check a message's envelope, and decode its body.

    Raises:
        InvalidMessage: kombu or Celery could not read it.
    """
    for name, kind in (("body", str), ("headers", dict), ("properties", dict)):
        if not isinstance(payload.get(name), kind):
            raise InvalidMessage(f"its {name!r} is missing, or not of type {kind.__name__}")
    for name in ("content-type", "content-encoding"):
        if not isinstance(payload.get(name), str):
            raise InvalidMessage(f"its {name!r} is missing, or not of type str")
    if deeper_than(MAX_DEPTH, payload):
        raise InvalidMessage(f"its envelope nests deeper than {MAX_DEPTH}")
    headers, properties = payload["headers"], payload["properties"]
    _check_fields("property", properties, PROPERTIES)
    _check_id(headers.get("id"))
    _check_fields("header", headers, {**FIELDS, **OWN})
    for name in (headers.keys() - FIELDS.keys()) & RESERVED:
        raise InvalidMessage(f"its header {name!r} is not a header; the name is Celery's own")
    info = properties["delivery_info"] = properties.get("delivery_info") or {}
    _check_fields("delivery_info's", info, {"exchange": _text, "routing_key": _text})
    payload["body"] = body_of(payload)


def body_of(payload: dict[str, Json]) -> bytes:
    """
    Return a message's body decoded, decompressed and decrypted; remove how from the envelope.

    Raises:
        InvalidMessage: This worker cannot read it.
    """
    return _inflated(_decoded(payload["body"], payload["properties"]), payload["headers"])


def check_task(headers: Mapping[str, Json], body: Json) -> str:
    """
    Check the task that a message names; return its name.

    Args:
        body: The decoded body.

    Raises:
        InvalidMessage: It is not a task of Celery's protocols.
    """
    if deeper_than(MAX_DEPTH, body):
        raise InvalidMessage(f"its body nests deeper than {MAX_DEPTH}")
    if headers.get("task") is not None:
        fields = headers
        _check_body(body)
        kwargs = body[1]
    elif isinstance(body, dict):
        fields = body
        _check_id(body.get("id"))
        _check_fields("body's", body, FIELDS_1)
        if (body.keys() - FIELDS_1.keys()) & RESERVED:
            raise InvalidMessage("its body has names that are Celery's own")
        kwargs = body.get("kwargs") or {}
    else:
        raise InvalidMessage("it names no task")
    for name in ("id", "task"):
        if fields.get(name) is None:
            raise InvalidMessage(f"it has no {name!r}")
    if "self" in kwargs:
        raise InvalidMessage("its kwargs name 'self', which is the task's own")
    return str(fields["task"])


def task_id_of(payload: Mapping[str, Json], body: Json = None) -> str:
    """
    Return the id of the task, for which a caller may wait; empty if the id cannot be used.

    An id that workers refuse can be used all the same: its caller waits for a result under it.
    """
    for fields in (payload.get("headers"), body):
        task_id = fields.get("id") if isinstance(fields, dict) else None
        if isinstance(task_id, str) and 0 < len(task_id) <= MAX_ANSWERED and _as_utf8(task_id):
            return task_id
    return ""


def dead_letter(store: DeliveryStore, tag: str, error: BreakwaterError, task_id: str) -> None:
    """
    Make a taken message a dead letter, and write the error as the result of its task, if any.

    Raises:
        redis.ConnectionError: Redis is unavailable; the message returns when its lease expires.
    """
    backend, kind = app.backend, type(error).__name__
    meta = ""
    if task_id:
        meta = backend.meta(task_id, error, states.FAILURE)
    try:
        store.dead_letter(
            tag, {"error": kind, "message": str(error)},
            task_id=task_id, meta=meta, expires_s=backend.expires,
        )  # fmt: skip
    except RedisError as refused:
        raise NotConnected(f"{type(refused).__name__}: {refused}") from refused
    _log.warning("dead_letter", task_id=task_id, error=kind, why=str(error))


def _check_id(task_id: Json) -> None:
    """Check a task's id; Celery's clients accept any string."""
    if isinstance(task_id, str) and not _name(task_id):
        what = "cannot be printed"
        if task_id.isprintable():
            what = f"has {len(task_id)} characters"
        raise InvalidMessage(
            f"its id {what}; a task id is a string of 1 to {MAX_NAME} printable characters"
        )


def _as_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def deeper_than(depth: int, value: Json) -> bool:
    """Return whether lists and objects nest deeper than this; recursion would have a limit."""
    level = [each for each in [value] if isinstance(each, dict | list)]
    for _ in range(depth):
        level = [
            child for each in level for child in _children(each) if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _children(value: dict[str, Json] | list[Json]) -> Iterable[Json]:
    if isinstance(value, dict):
        return value.values()
    return value


def _check_body(body: Json) -> None:
    """Check the body of protocol 2."""
    shape = {"args": list, "kwargs": dict, "canvas": dict | None}
    if not isinstance(body, list) or len(body) != len(shape):
        raise InvalidMessage("its body is not a list of arguments, named ones, and canvas")
    for (name, kind), value in zip(shape.items(), body, strict=True):
        if not isinstance(value, kind):
            raise InvalidMessage(f"the {name} in its body have the wrong type")
    canvas = body[2] or {}
    if canvas.keys() - CANVAS.keys():
        raise InvalidMessage(f"the canvas in its body has more than {', '.join(CANVAS)}")
    _check_fields("canvas'", canvas, CANVAS)


def _check_fields(what: str, fields: Mapping[str, Json], checks: Mapping[str, Check]) -> None:
    for name, fits in checks.items():
        if (value := fields.get(name)) is not None and not fits(value):
            raise InvalidMessage(
                f"its {what} {name!r} does not fit: a {type(value).__name__} that Celery cannot use"
            )


def _decoded(body: str, properties: dict[str, Json]) -> bytes:
    match properties.pop("body_encoding", None):
        case "base64":
            try:
                return b64decode(body)
            except ValueError:
                raise InvalidMessage("its body is not base64") from None
        case "utf-8" | None:
            try:
                return body.encode()
            except UnicodeEncodeError:
                raise InvalidMessage("its body cannot be written as UTF-8") from None
        case encryption.ENCODING:
            try:
                return encryption.decrypt(body)
            except ConfigError as fault:
                raise InvalidMessage(f"its body cannot be read: {fault}") from None
    raise InvalidMessage("its body_encoding is neither base64 nor utf-8")


def _inflated(body: bytes, headers: dict[str, Json]) -> bytes:
    """Decompress a body up to a bound; a few bytes could fill the memory."""
    if not (compression := headers.pop("compression", None)):
        return body
    if compression not in MAY_INFLATE:
        raise InvalidMessage(f"its compression is not one of {', '.join(sorted(MAY_INFLATE))}")
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(body, MAX_MESSAGE_BYTES)
    except zlib.error:
        raise InvalidMessage("its body cannot be decompressed") from None
    if inflater.unconsumed_tail or not inflater.eof:
        raise InvalidMessage(
            f"its body is not whole, or has more than {MAX_MESSAGE_BYTES} bytes when decompressed"
        )
    return inflated

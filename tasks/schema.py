"""
JSON Schema: whether a schema is one, and what an answer makes of it.

Draft 2020-12 unless the schema names another; formats are not asserted, and references stay within
the schema: nothing is ever fetched. jsonschema takes 70 ms to import, so only a call that brings a
schema or tools imports it.

Source: json-schema.org, "JSON Schema: A Media Type for Describing JSON Documents", 2020-12.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

MAX_DEPTH = 64
"""How deep what a call brings may nest; a message as a whole may a little deeper."""
KEPT_BYTES = 262_144
"""A schema of up to this size is kept compiled: checking one takes 2 ms, looking it up 20 µs."""
MAX_TOLD = 5
"""Faults of an answer that its model is told of."""
_FENCED = re.compile(r"```json\s*\n(.*)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer's text says."""

    data: Any = field(default=None, repr=False)
    fault: str = ""
    """The first rule that is broken and where, none of the answer's own words; empty if none is."""
    advice: str = field(default="", repr=False)
    """For the model that gave the answer: the faults in full."""


class Shape:
    """
    A schema, ready to read answers with.

    Args:
        schema: Its JSON Schema.
        validator: jsonschema's, for it.
    """

    def __init__(self, schema: Mapping[str, Any], validator: Any) -> None:
        self._validator = validator
        self._declared = frozenset(_declared(schema))

    def read(self, text: str) -> Reading:
        """Read an answer's text as JSON, perhaps in a ```json fence, and validate it."""
        fenced = _FENCED.fullmatch(text.strip())
        try:
            data = json.loads(fenced[1] if fenced else text)
            # What Python reads and JSON has not: NaN, Infinity, half a surrogate pair.
            json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return Reading(fault="is not JSON", advice="it is not JSON")
        try:
            errors = list(islice(self._validator.iter_errors(data), MAX_TOLD))
        except RecursionError:
            return Reading(fault="nests too deep to be validated", advice="it nests too deep")
        if not errors:
            return Reading(data)
        told = [f"at {_pointer(e.absolute_path)}: {e.message[:300]}" for e in errors]
        return Reading(fault=self._named(errors[0]), advice="; ".join(told))

    def _named(self, error: Any) -> str:
        """Name place and rule; a key that the schema does not name is the answer's own word."""
        place = (
            step if isinstance(step, int) or step in self._declared else "*"
            for step in error.absolute_path
        )
        return f"breaks {error.validator!r} at {_pointer(place)}"


def shape_of(schema: Mapping[str, Any]) -> Shape:
    """
    Return a schema in which `fault_of` finds none, ready to read answers with.

    Raises:
        ValueError: It finds one.
    """
    shape, fault = _compiled(json.dumps(schema))
    if shape is None:
        raise ValueError(f"this is no JSON Schema: {fault}")
    return shape


def schema_of(model: type) -> dict[str, Any]:
    """
    Return a pydantic model class as its JSON Schema.

    Raises:
        ValueError: It is another class, or has a field that JSON Schema has no words for.
    """
    convert = getattr(model, "model_json_schema", None)
    if convert is None:
        raise ValueError(f"the class {model.__name__} is no pydantic model")
    try:
        schema: dict[str, Any] = convert()
    except Exception as error:  # noqa: BLE001 - pydantic's own classes are not to be imported here
        kind = type(error).__name__
        raise ValueError(f"the class {model.__name__} has no JSON Schema ({kind})") from None
    return schema


def as_json_object(value: object) -> dict[str, Any]:
    """
    Return a copy of a JSON object, as it would arrive.

    Raises:
        ValueError: It is none; the message says why, and nothing of what is in it.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"is a {type(value).__name__}; it must be an object")
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("cannot be written as UTF-8: it has a lone surrogate") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from None
    copy: dict[str, Any] = json.loads(text)
    if _depth(copy) > MAX_DEPTH:
        raise ValueError(f"nests deeper than {MAX_DEPTH}")
    return copy


def fault_of(schema: Mapping[str, Any]) -> str:
    """Say what keeps an object from being a JSON Schema; empty if nothing does."""
    return _compiled(json.dumps(schema))[1]


def _compiled(text: str) -> tuple[Shape | None, str]:
    return _kept(text) if len(text) <= KEPT_BYTES else _compile(text)


@lru_cache(maxsize=64)
def _kept(text: str) -> tuple[Shape | None, str]:
    return _compile(text)


def _compile(text: str) -> tuple[Shape | None, str]:
    """Return a shape and no fault, or the fault."""
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415 - 70 ms
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    schema = json.loads(text)
    if not _names_known_draft(schema):
        return None, "at /$schema: it names no draft that is known; leave it out for 2020-12"
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
        # Without a registry of its own, jsonschema would fetch what a reference names.
        validator = kind(schema, registry=Registry())
        for there in _referred(schema):
            kind.check_schema(there)
        next(validator.iter_errors(None), None)
    except SchemaError as error:
        return None, f"at {_pointer(error.absolute_path)}: it breaks {error.validator!r}"
    except (Unresolvable, LookupError, TypeError, ValueError):  # as jsonschema and urllib raise
        return None, "a $ref leads to no schema; it must point into the schema itself, as #/$defs/…"
    except RecursionError:
        return None, "it refers to itself without an end"
    return Shape(schema, validator), ""


def _names_known_draft(schema: Mapping[str, Any]) -> bool:
    from referencing.jsonschema import UnknownDialect, specification_with  # noqa: PLC0415 - as above

    draft = schema.get("$schema")
    try:
        return draft is None or (isinstance(draft, str) and bool(specification_with(draft)))
    except UnknownDialect:
        return False


def _referred(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Look up every reference, also those that only some answers would make a validator follow."""
    from referencing import Registry, Resource  # noqa: PLC0415 - as above
    from referencing.jsonschema import DRAFT202012  # noqa: PLC0415

    root = Resource.from_contents(schema, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource(root.id() or "", root).crawl()
    waiting = [(root, registry.resolver_with_root(root))]
    seen = set()
    while waiting:
        resource, resolver = waiting.pop()
        if isinstance(resource.contents, Mapping):
            for key in {"$ref", "$dynamicRef"} & resource.contents.keys():
                there = resolver.lookup(resource.contents[key]).contents
                if id(there) not in seen:  # all are parts of the schema, which stays
                    seen.add(id(there))
                    yield there
        waiting += [(each, resolver.in_subresource(each)) for each in resource.subresources()]


def _declared(schema: object) -> Iterator[str]:
    """Name the properties that a schema speaks of."""
    level = [schema]
    while level:
        each = level.pop()
        if isinstance(each, Mapping):
            properties = each.get("properties")
            if isinstance(properties, Mapping):
                yield from properties
            level += each.values()
        elif isinstance(each, list):
            level += each


def _depth(value: object) -> int:
    """Count how deep lists and objects nest, without recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        level = [
            child for each in level for child in (each.values() if isinstance(each, dict) else each)
        ]
        depth += 1
    return depth


def _pointer(path: Any) -> str:
    """Write a path as a JSON pointer (RFC 6901)."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(f"/{step}" for step in steps) or "the top"

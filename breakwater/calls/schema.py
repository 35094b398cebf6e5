"""
JSON Schema: whether a schema is one, and what an answer makes of it.

Draft 2020-12 unless the schema names another; formats are not asserted, and references stay within
the schema: nothing is ever fetched. Schemas are bounded in size (`schema_bounds.py`), and so is the
work of validating: an answer is judged in this process if a sum shows that it takes well under a
second, and else in a process that can be ended (`validation.py`).

Source: json-schema.org, "JSON Schema: A Media Type for Describing JSON Documents", 2020-12.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from breakwater.calls.schema_bounds import (
    MAX_BYTES,
    NOWHERE,
    Unbounded,
    expansion_of,
    pattern_count,
    values_of,
)

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

    from breakwater.calls.validation import Fault

MAX_DEPTH = 64
"""How deep what a call brings, or an answer, may nest; a message as a whole may a little deeper."""
KEPT_BYTES = 32 * 1024
"""A schema of up to this size is kept compiled."""
LIMIT_S = 10.0
"""How long validating one answer may take; never longer than the task's deadline allows."""
MAX_STEPS = 2_000_000
"""Visits of a subschema to a value, 40 ns each, that are made in this process."""
MAX_MATCHED = 256 * 1024
"""Characters of an answer times regular expressions, up to 5 µs each, in this process."""
DRAFTS = ("2020-12", "2019-09", "draft-07", "draft-06", "draft-04")
LARGE = 2**53
"""From here on a float is not exact."""


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What an answer's text says."""

    data: Any = field(default=None, repr=False)
    fault: str = ""
    """The first rule that is broken and where, none of the answer's own words; empty if none is."""
    advice: str = field(default="", repr=False)
    """For the model that gave the answer: the faults in full; empty if it can do nothing."""


class CompiledSchema:
    """
    A schema, ready to read answers with.

    Args:
        text: The schema as JSON.
        validator: Its validator; None if answers are to be judged in a process of their own.
        expansion: See `breakwater.calls.schema_bounds`; None if there is none.
    """

    def __init__(self, text: str, validator: "Validator | None", expansion: int | None) -> None:
        self._text = text
        self._validator = validator
        self._expansion = expansion
        schema = json.loads(text)
        self._patterns = pattern_count(schema)
        self._declared = frozenset(_declared(schema))

    def read(self, text: str, limit_s: float = LIMIT_S) -> ParsedAnswer:
        """
        Read an answer's text as JSON, perhaps in a ```json fence, and validate it.

        Args:
            limit_s: What is left of the task's time, in seconds.
        """
        try:
            data = json.loads(unfenced(text))
            # What Python reads and JSON has not: NaN, Infinity, half a surrogate pair.
            plain = json.dumps(data, allow_nan=False, ensure_ascii=False)
            plain.encode()
        except (ValueError, RecursionError):
            return ParsedAnswer(fault="is not JSON", advice="it is not JSON")
        if depth_of(data) > MAX_DEPTH:
            deep = f"nests deeper than {MAX_DEPTH}"
            return ParsedAnswer(fault=deep, advice=f"it {deep}")
        from breakwater.calls.validation import NotValidated  # noqa: PLC0415 - 8 MiB; not without schemas

        try:
            faults = self._faults(data, plain, limit_s)
        except NotValidated as not_validated:
            return ParsedAnswer(fault=str(not_validated))
        if not faults:
            return ParsedAnswer(data)
        advice = [f"at {_pointer(each.path)}: {each.message}" for each in faults]
        return ParsedAnswer(fault=self._named(faults[0]), advice="; ".join(advice))

    def _faults(self, data: Any, plain: str, limit_s: float) -> "list[Fault]":
        from breakwater.calls.validation import judge, run  # noqa: PLC0415 - as above

        if self._validator is not None and self._expansion is not None:
            most = MAX_STEPS // self._expansion
            is_short = len(plain) * self._patterns <= MAX_MATCHED
            if is_short and (values := _plain_values(data, most)) is not None:
                return judge(self._validator, data, values * self._expansion)
        return run(self._text, plain, max(0.1, min(LIMIT_S, limit_s)))

    def _named(self, fault: "Fault") -> str:
        """Name place and rule; a key that the schema does not name is the answer's own word."""
        place = (
            step if isinstance(step, int) or step in self._declared else "*" for step in fault.path
        )
        return f"breaks {fault.rule!r} at {_pointer(place)}"


def unfenced(text: str) -> str:
    """Return what stands in a ```json fence, if the text is nothing but that; else the text."""
    body = text.strip()
    if not (body.startswith("```json") and body.endswith("```")):
        return text
    after, newline, inside = body[len("```json") : -len("```")].partition("\n")
    return inside if newline and not after.strip() else text


def compile_schema(schema: Mapping[str, Any]) -> CompiledSchema:
    """
    Return a schema in which `schema_fault` finds none, ready to read answers with.

    Raises:
        ValueError: It finds one.
    """
    shape, fault = _compiled(json.dumps(schema))
    if shape is None:
        raise ValueError(f"this is no JSON Schema: {fault}")
    return shape


def pydantic_schema(model: type) -> dict[str, Any]:
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
    if depth_of(copy) > MAX_DEPTH:
        raise ValueError(f"nests deeper than {MAX_DEPTH}")
    return copy


def schema_fault(schema: Mapping[str, Any]) -> str:
    """
    Return why an object is not a valid JSON Schema; empty if it is valid.

    Without jsonschema-rs, which is 15 MB and an extra of the client, only its size, its draft and
    its references are checked here. The worker, which always has it, checks the rest before it
    calls a provider.
    """
    text = json.dumps(schema)
    if find_spec("jsonschema_rs") is not None:
        return _compiled(text)[1]
    try:
        _bounded(text)
    except Unbounded as fault:
        return str(fault)
    return ""


def _compiled(text: str) -> tuple[CompiledSchema | None, str]:
    return _kept(text) if len(text) <= KEPT_BYTES else _compile(text)


@lru_cache(maxsize=64)
def _kept(text: str) -> tuple[CompiledSchema | None, str]:
    return _compile(text)


def _compile(text: str) -> tuple[CompiledSchema | None, str]:
    """Return a shape and no fault, or the fault."""
    from jsonschema_rs import ValidationError  # noqa: PLC0415 - as above

    try:
        schema, expansion = _bounded(text)
        validator, linear = _validator(text)
    except Unbounded as fault:
        return None, str(fault)
    except ValidationError as error:
        return None, _refusal(error)
    if not linear or _plain_values(schema, MAX_BYTES) is None:
        expansion = None
    return CompiledSchema(text, validator if expansion is not None else None, expansion), ""


def _bounded(text: str) -> tuple[dict[str, Any], int | None]:
    """
    Return a schema and its expansion, None if it has none.

    Raises:
        Unbounded: It is too large, names an unknown draft, or has a reference that leads nowhere.
    """
    if len(text) > MAX_BYTES:
        raise Unbounded(f"it has {len(text)} bytes as JSON; at most {MAX_BYTES} are allowed")
    schema: dict[str, Any] = json.loads(text)
    if not _names_known_draft(schema):
        raise Unbounded(
            f"at /$schema: it names no draft that is known, which are {', '.join(DRAFTS)}; leave "
            f"it out for 2020-12"
        )
    return schema, expansion_of(schema)


def _validator(text: str) -> "tuple[Validator, bool]":
    """Compile a schema; say whether its regular expressions run in linear time."""
    from breakwater.calls.validation import compiled  # noqa: PLC0415 - as above

    try:
        return compiled(text, linear=True), True
    except ValueError as error:
        if not _is_of_pattern(error):
            raise
    return compiled(text, linear=False), False


def _is_of_pattern(error: Any) -> bool:
    return bool(
        error.kind.name == "format" and {"pattern", "patternProperties"} & {*error.instance_path}
    )


def _refusal(error: "ValidationError") -> str:
    """Say why something is not a JSON Schema, in none of its own words."""
    if error.kind.name == "$ref":
        return NOWHERE
    where = _pointer(error.instance_path)
    if _is_of_pattern(error):
        return (
            f"at {where}: this regular expression is not supported; allowed are those of ECMA-262 "
            f"(mode u) of at most 1 MiB when compiled"
        )
    return f"at {where}: it breaks {error.kind.name!r}"


def _names_known_draft(schema: Mapping[str, Any]) -> bool:
    draft = schema.get("$schema")
    if draft is None:
        return True
    if not isinstance(draft, str):
        return False
    address = draft.removesuffix("#").removeprefix("https://").removeprefix("http://")
    return address in {
        f"json-schema.org/{each}/schema" if each.startswith("draft-")
        else f"json-schema.org/draft/{each}/schema"
        for each in DRAFTS
    }  # fmt: skip


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


def depth_of(value: object) -> int:
    """Count how deep lists and objects nest, without recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        level = [
            child for each in level for child in (each.values() if isinstance(each, dict) else each)
        ]
        depth += 1
    return depth


def _plain_values(data: object, most: float) -> int | None:
    """
    Count the values in JSON data, names too.

    Returns:
        Their number; None if there are more than `most`, or a number of more than 53 bits among
        them: long integers take the validator a thousand times longer to compare, and floats as
        large are to be compared as integers.
    """
    count = 0
    for count, each in enumerate(values_of(data), 1):
        is_long = isinstance(each, int | float) and not -LARGE < each < LARGE
        if is_long or count > most:
            return None
    return count


def _pointer(path: Any) -> str:
    """Write a path as a JSON pointer (RFC 6901)."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(f"/{step}" for step in steps) or "the top"

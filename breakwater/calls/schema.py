"""
Check JSON Schemas, and validate answers with them.

The draft is 2020-12 unless the schema names another. Formats are not asserted. References must stay
within the schema: nothing is ever fetched. The size of a schema is limited (`schema_bounds.py`), as
is the work of validation. An answer is validated in this process if a calculation shows that it
takes well under a second, and else in a process that can be killed (`validation.py`).

Source: json-schema.org, "JSON Schema: A Media Type for Describing JSON Documents", 2020-12.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from breakwater.calls.schema_bounds import (
    MAX_BYTES,
    NOWHERE,
    Unbounded,
    expansion_of,
    pattern_count,
    values_of,
)
from breakwater.content import JsonObject

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

    from breakwater.calls.validation import Fault

MAX_DEPTH = 64
"""Nesting limit for answers and for each part of a call; a whole message may nest a bit deeper."""
KEPT_BYTES = 32 * 1024
"""Compiled schemas of up to this size are cached."""
LIMIT_S = 10.0
"""Time limit for validating one answer; the task's deadline may shorten it."""
MAX_STEPS = 2_000_000
"""Limit for validation in this process: visits of a subschema to a value, 40 ns each."""
MAX_MATCHED = 256 * 1024
"""Limit for this process: characters of the answer times regular expressions, up to 5 µs each."""
DRAFTS = ("2020-12", "2019-09", "draft-07", "draft-06", "draft-04")
LARGE = 2**53
"""Floats are not exact from here on."""


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """The JSON value of an answer, or why it does not satisfy the schema."""

    data: object = field(default=None, repr=False)
    fault: str = ""
    """The first broken rule and its place, in none of the answer's own words; empty if it fits."""
    advice: str = field(default="", repr=False)
    """The faults in full, for the model that gave the answer; empty if it cannot correct them."""


class CompiledSchema:
    """
    A schema that is ready to read answers.

    Args:
        text: The schema as JSON.
        validator: None if each answer must be validated in a separate process.
        expansion: See `breakwater.calls.schema_bounds`; None if the schema has none.
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
        Read an answer's text as JSON, with or without a ```json fence, and validate it.

        Args:
            limit_s: The seconds until the task's deadline.
        """
        try:
            data = json.loads(unfenced(text))
            # Python also reads what JSON does not have: NaN, Infinity, half a surrogate pair.
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

    def _faults(self, data: object, plain: str, limit_s: float) -> "list[Fault]":
        from breakwater.calls.validation import judge, run  # noqa: PLC0415 - as above

        if self._validator is not None and self._expansion is not None:
            most = MAX_STEPS // self._expansion
            is_short = len(plain) * self._patterns <= MAX_MATCHED
            if is_short and (values := _plain_values(data, most)) is not None:
                return judge(self._validator, data, values * self._expansion)
        return run(self._text, plain, max(0.1, min(LIMIT_S, limit_s)))

    def _named(self, fault: "Fault") -> str:
        """Name place and rule; a key that the schema does not declare may quote the answer."""
        place: list[str | int] = []
        for step in fault.path:
            is_public = isinstance(step, int) or step in self._declared
            place.append(step if is_public else "*")
        return f"breaks {fault.rule!r} at {_pointer(place)}"


def unfenced(text: str) -> str:
    """Return the content of a ```json fence if the text is one fence; else the whole text."""
    body = text.strip()
    if not (body.startswith("```json") and body.endswith("```")):
        return text
    after, newline, inside = body[len("```json") : -len("```")].partition("\n")
    if newline and not after.strip():
        return inside
    return text


def compile_schema(schema: Mapping[str, object]) -> CompiledSchema:
    """
    Compile a schema in which `schema_fault` finds no fault.

    Raises:
        ValueError: The schema has a fault.
    """
    shape, fault = _compiled(json.dumps(schema))
    if shape is None:
        raise ValueError(f"this is not a valid JSON Schema: {fault}")
    return shape


def pydantic_schema(model: type) -> JsonObject:
    """
    Return the JSON Schema of a pydantic model class.

    Raises:
        ValueError: The class is not a pydantic model, or JSON Schema cannot express a field.
    """
    convert = getattr(model, "model_json_schema", None)
    if convert is None:
        raise ValueError(f"the class {model.__name__} is not a pydantic model")
    try:
        schema: JsonObject = convert()
    except Exception as error:  # noqa: BLE001 - this module must not import pydantic's error classes
        kind = type(error).__name__
        raise ValueError(f"the class {model.__name__} has no JSON Schema ({kind})") from None
    return schema


def as_json_object(value: object) -> JsonObject:
    """
    Return a copy of a JSON object, as the worker would receive it.

    Raises:
        ValueError: The value is not a JSON object; the message says why, and quotes nothing of it.
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
    copy: JsonObject = json.loads(text)
    if depth_of(copy) > MAX_DEPTH:
        raise ValueError(f"nests deeper than {MAX_DEPTH}")
    return copy


def schema_fault(schema: Mapping[str, object]) -> str:
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
    if len(text) <= KEPT_BYTES:
        return _kept(text)
    return _compile(text)


@lru_cache(maxsize=64)
def _kept(text: str) -> tuple[CompiledSchema | None, str]:
    return _compile(text)


def _compile(text: str) -> tuple[CompiledSchema | None, str]:
    """Return the compiled schema and an empty fault, or None and the fault."""
    from jsonschema_rs import ValidationError  # noqa: PLC0415 - as above

    try:
        schema, expansion = _bounded(text)
        validator, linear = _validator(text)
    except Unbounded as fault:
        return None, str(fault)
    except ValidationError as error:
        return None, _refusal(error)
    if expansion is None or not linear or _plain_values(schema, MAX_BYTES) is None:
        return CompiledSchema(text, None, None), ""
    return CompiledSchema(text, validator, expansion), ""


def _bounded(text: str) -> tuple[JsonObject, int | None]:
    """
    Return a schema and its expansion; None if it has no expansion.

    Raises:
        Unbounded: It is too large, names an unknown draft, or has a reference without a target.
    """
    if len(text) > MAX_BYTES:
        raise Unbounded(f"it has {len(text)} bytes as JSON; at most {MAX_BYTES} are allowed")
    schema: JsonObject = json.loads(text)
    if not _names_known_draft(schema):
        raise Unbounded(
            f"at /$schema: it names an unknown draft; known are {', '.join(DRAFTS)}; leave it out "
            f"for 2020-12"
        )
    return schema, expansion_of(schema)


def _validator(text: str) -> "tuple[Validator, bool]":
    """Compile a schema; return also whether its regular expressions run in linear time."""
    from breakwater.calls.validation import compiled  # noqa: PLC0415 - as above

    try:
        return compiled(text, linear=True), True
    except ValueError as error:
        from jsonschema_rs import ValidationError  # noqa: PLC0415 - as above

        if not isinstance(error, ValidationError) or not _is_of_pattern(error):
            raise
    return compiled(text, linear=False), False


def _is_of_pattern(error: "ValidationError") -> bool:
    return bool(
        error.kind.name == "format" and {"pattern", "patternProperties"} & {*error.instance_path}
    )


def _refusal(error: "ValidationError") -> str:
    """Return why a value is not a valid JSON Schema, and quote nothing of it."""
    if error.kind.name == "$ref":
        return NOWHERE
    where = _pointer(error.instance_path)
    if _is_of_pattern(error):
        return (
            f"at {where}: this regular expression is not supported; allowed are those of ECMA-262 "
            f"(mode u) of at most 1 MiB when compiled"
        )
    return f"at {where}: it breaks {error.kind.name!r}"


def _names_known_draft(schema: Mapping[str, object]) -> bool:
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
    """Yield the names of the properties that a schema declares."""
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
    """Return how deep lists and objects nest, without recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        children: list[object] = []
        for each in level:
            if isinstance(each, dict):
                children += each.values()
            elif isinstance(each, list):
                children += each
        level = children
    return depth


def _plain_values(data: object, most: float) -> int | None:
    """
    Count the values in JSON data, including the names of members.

    Returns:
        Their number; None if there are more than `most`, or if a number has more than 53 bits. The
        validator takes a thousand times longer to compare long integers, and floats as large must
        be compared as integers.
    """
    count = 0
    for count, each in enumerate(values_of(data), 1):
        is_long = isinstance(each, int | float) and not -LARGE < each < LARGE
        if is_long or count > most:
            return None
    return count


def _pointer(path: Iterable[str | int]) -> str:
    """Return a path as a JSON pointer (RFC 6901)."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(f"/{step}" for step in steps) or "the top"

"""
The JSON Schemas that each vendor accepts for an answer; it refuses all others.

Source: the vendors' pages on structured outputs, and messages quoted in public issues (Anthropic:
agentjido/req_llm#302, ghostlobster/memorize-everything#93; OpenAI: moeru-ai/xsai#202,
docker/docker-agent#1871).
"""

from collections.abc import Iterator, Mapping
from typing import Any

CLOSED = "'additionalProperties' is required to be supplied and to be false."
OPENAI_REFUSES = ("allOf", "oneOf", "not", "if", "then", "else", "dependentRequired")
ANTHROPIC_REFUSES = {
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength"),
    "array": ("maxItems", "uniqueItems"),
}


def fault_at_anthropic(schema: object) -> str | None:
    """Return why Anthropic refuses a schema; None if it accepts it."""
    if not isinstance(schema, Mapping):
        return "Input should be a valid dictionary"
    for _, each in _walk(schema):
        kind = each.get("type")
        if kind == "object" and each.get("additionalProperties") is not False:
            return "For 'object' type, 'additionalProperties' must be explicitly set to false"
        for name in ANTHROPIC_REFUSES.get(str(kind), ()):
            if name in each:
                return f"For '{kind}' type, property '{name}' is not supported"
        if kind == "array" and each.get("minItems", 0) not in (0, 1):
            return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return None


def fault_at_openai(schema: object, *, strict: bool) -> str | None:
    """Return why OpenAI refuses a schema; None if it accepts it."""
    found = schema.get("type") if isinstance(schema, Mapping) else None
    if not isinstance(schema, Mapping) or found != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{found}\"'."
    for path, each in _walk(schema) if strict else ():
        context = f"In context={path}, "
        if named := [name for name in OPENAI_REFUSES if name in each]:
            return f"{context}'{named[0]}' is not permitted."
        if each.get("type") != "object" and "properties" not in each:
            continue
        if each.get("additionalProperties") is not False:
            return context + CLOSED
        required = each.get("required", [])
        if lost := [name for name in each.get("properties", {}) if name not in required]:
            return (
                f"{context}'required' is required to be supplied and to be an array including "
                f"every key in properties. Missing '{lost[0]}'."
            )
    return None


def _walk(
    schema: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Walk over a schema and its subschemas, with the path to each."""
    yield path, schema
    for name in ("properties", "$defs", "definitions"):
        for key, inner in _items(schema.get(name)):
            yield from _walk(inner, (*path, name, key))
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        branches = schema.get(name)
        for at, inner in enumerate(branches if isinstance(branches, list) else []):
            if isinstance(inner, Mapping):
                yield from _walk(inner, (*path, name, str(at)))
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), Mapping):
            yield from _walk(schema[name], (*path, name))


def _items(value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield from ((key, inner) for key, inner in value.items() if isinstance(inner, Mapping))

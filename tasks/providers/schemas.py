"""
JSON Schemas as the vendors take them, without changing what they mean.

No vendor takes all of JSON Schema, and what it does not take it answers with a 400. So each schema
is looked at before it is sent: what can be said in the vendor's subset is, what cannot is asked for
loosely (OpenAI) or refused here, so that the next target gets it (Anthropic). Whoever asked
validates the answer against the schema as it was written.

Sources: the "supported schemas" sections of OpenAI's and Anthropic's pages on structured outputs,
and `anthropic.transform_schema`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]

_ANNOTATIONS = frozenset({"title", "description"})
_STRICT = _ANNOTATIONS | {
    "type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems",
    "enum", "const", "anyOf", "$ref", "$defs", "definitions", "pattern", "format", "multipleOf",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
}  # fmt: skip
"""The keywords of OpenAI's strict mode."""
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
STRICT_DEPTH = 10
"""Objects within objects, in OpenAI's strict mode."""
STRICT_CHARS = 100_000
"""Of the whole schema as JSON; OpenAI allows 120,000 in its names and 5,000 properties."""
MAX_OPTIONAL, MAX_UNIONS = 24, 16
"""How many optional properties and unions Anthropic takes."""


class UnsupportedSchema(ValueError):  # noqa: N818 - not a failure: another way or target is used
    """The vendor's subset cannot say what the schema means."""


def rooted(schema: Mapping[str, Any]) -> Schema:
    """Return the schema with its root spelled out, where that is a reference into itself."""
    root = dict(schema)
    seen = {"#"}
    while (reference := root.get("$ref")) is not None and str(reference) not in seen:
        seen.add(str(reference))
        root = {**_resolved(schema, root.pop("$ref")), **root}
    return root


def is_object(schema: Mapping[str, Any]) -> bool:
    """Tell whether the root is an object, on which OpenAI insists."""
    return schema.get("type") == "object" and "anyOf" not in schema


def strict(schema: Mapping[str, Any]) -> Schema | None:
    """
    Return the schema for OpenAI's strict mode.

    Returns:
        The same schema with every object closed; None where strict mode has no words for it.
    """
    if not is_object(schema) or len(json.dumps(schema)) > STRICT_CHARS:
        return None
    try:
        return _strict(schema, 0)
    except UnsupportedSchema:
        return None


def _strict(node: Any, depth: int) -> Schema:
    if not isinstance(node, Mapping) or not node.keys() <= _STRICT or depth > STRICT_DEPTH:
        raise UnsupportedSchema
    if "$ref" in node:
        return _strict_reference(node)
    if "type" not in node and "anyOf" not in node:
        raise UnsupportedSchema
    if not all(isinstance(value, str | int | float | None) for value in node.get("enum", ())):
        raise UnsupportedSchema
    if ("array" in _types(node)) != ("items" in node) or node.get("format", "date") not in _FORMATS:
        raise UnsupportedSchema
    copy = {**node, **(_strict_object(node) if "object" in _types(node) else {})}
    return copy | {
        name: _strict_nested(name, copy[name], depth) for name in _NESTING_KEYWORDS & copy.keys()
    }


def _strict_object(node: Mapping[str, Any]) -> Schema:
    properties = node.get("properties", {})
    if node.get("additionalProperties", "properties" not in node) is not False:
        raise UnsupportedSchema  # it has properties of any name
    if {*node.get("required", ())} != properties.keys():  # strict mode knows no optional ones
        raise UnsupportedSchema
    return {
        "properties": properties, "required": list(properties), "additionalProperties": False
    }  # fmt: skip


_NESTING_KEYWORDS = {"properties", "items", "anyOf", "$defs", "definitions"}
"""The keywords that hold further schemas."""


def _strict_nested(keyword: str, value: Any, depth: int) -> Any:
    if keyword == "items":
        return _strict(value, depth)
    if keyword == "anyOf":
        return [_strict(one, depth) for one in value]
    deeper = depth + (keyword == "properties")
    return {name: _strict(one, deeper) for name, one in value.items()}


def _strict_reference(node: Mapping[str, Any]) -> Schema:
    """Keep what pydantic notes beside a reference, which strict mode wants to stand alone."""
    if not str(node["$ref"]).startswith("#") or not node.keys() <= _ANNOTATIONS | {"$ref"}:
        raise UnsupportedSchema
    notes = {name: node[name] for name in _ANNOTATIONS & node.keys()}
    return {"anyOf": [{"$ref": node["$ref"]}], **notes} if notes else dict(node)


def closed(schema: Mapping[str, Any]) -> Schema:
    """
    Return the schema in the forms that `anthropic.transform_schema` reads.

    Raises:
        Unsayable: Closing its objects, on which Anthropic insists, would change what they mean, or
            it holds what Anthropic refuses: recursion, too many optional properties or unions.
    """
    copy = _closed(rooted(schema))
    _refuse_recursion(copy)
    nodes = list(_nodes(copy))
    optional = sum(
        len({*node.get("properties", ())} - {*node.get("required", ())}) for node in nodes
    )
    if optional > MAX_OPTIONAL or sum("anyOf" in node for node in nodes) > MAX_UNIONS:
        raise UnsupportedSchema("it has more optional properties or unions than the vendor takes")
    return copy


def _closed(node: Any) -> Schema:
    if not isinstance(node, Mapping):
        raise UnsupportedSchema("it allows anything somewhere")
    copy = {name: node[name] for name in node if name not in {"$schema", "$id", "definitions"}}
    if "definitions" in node:
        copy["$defs"] = {**node["definitions"], **node.get("$defs", {})}
    if "$ref" in copy:
        copy["$ref"] = _reference(copy["$ref"])
    if isinstance(copy.get("type"), list):
        kinds = copy.pop("type")
        apart = {name: copy.pop(name) for name in [*copy] if name not in _ANNOTATIONS | {"$defs"}}
        copy["anyOf"] = [{"type": kind, **_of_kind(kind, apart)} for kind in kinds]
    _refuse_open(copy)
    for name in ("properties", "$defs"):
        if name in copy:
            copy[name] = {key: _closed(one) for key, one in copy[name].items()}
    if "items" in copy:
        copy["items"] = _closed(copy["items"])
    for name in ("anyOf", "oneOf", "allOf"):
        if name in copy:
            copy[name] = [_closed(one) for one in copy[name]]
    return copy


def _refuse_open(node: Schema) -> None:
    """Refuse objects that would mean something else once nothing may be added to them."""
    if "object" in _types(node):
        if isinstance(node.get("additionalProperties"), Mapping) or "patternProperties" in node:
            raise UnsupportedSchema("it has an object with properties of any name")
        if "properties" not in node and node.get("additionalProperties") is not False:
            raise UnsupportedSchema("it has an object with properties of any name")
        if not {*node.get("required", ())} <= {*node.get("properties", ())}:
            raise UnsupportedSchema("it requires a property that it does not describe")
        if node.keys() & {"anyOf", "oneOf", "allOf"}:
            raise UnsupportedSchema("it has an object described in several places")
    if len(node.get("allOf", ())) > 1:
        raise UnsupportedSchema("it has an object described in several places")


def _of_kind(kind: str, keywords: Schema) -> Schema:
    """Pick from the keywords of several types those that mean something for one."""
    if "enum" in keywords:
        keywords = {**keywords, "enum": [v for v in keywords["enum"] if _is_of(kind, v)]}
    own_keywords = {
        "object": {"properties", "required", "additionalProperties", "patternProperties"},
        "array": {"items", "minItems", "maxItems"},
    }
    others = set().union(*(names for other, names in own_keywords.items() if other != kind))
    return {name: value for name, value in keywords.items() if name not in others}


def _is_of(kind: str, value: object) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    of: dict[str, tuple[type, ...]] = {
        "string": (str,), "integer": (int,), "number": (int, float),
        "array": (list,), "object": (dict,),
    }  # fmt: skip
    return isinstance(value, of.get(kind, ()))


def _refuse_recursion(schema: Schema) -> None:
    """Follow each definition's references once, depth first."""
    refers = {
        name: {str(node["$ref"]).removeprefix("#/$defs/") for node in _nodes(one) if "$ref" in node}
        for name, one in schema.get("$defs", {}).items()
    }
    done: set[str] = set()
    is_open: set[str] = set()
    waiting = [(name, False) for name in refers]
    while waiting:
        name, is_left = waiting.pop()
        if is_left:
            is_open.discard(name)
            done.add(name)
        elif name in is_open:
            raise UnsupportedSchema("it describes itself")
        elif name not in done:
            is_open.add(name)
            waiting.append((name, True))
            waiting += [(one, False) for one in refers.get(name, ())]


def _reference(to: object) -> str:
    name = str(to).removeprefix("#/definitions/").removeprefix("#/$defs/")
    if name == to or "/" in name:
        raise UnsupportedSchema("it refers to somewhere else than its own definitions")
    return f"#/$defs/{name}"


def _resolved(schema: Mapping[str, Any], reference: object) -> Mapping[str, Any]:
    node: Any = schema
    for step in str(reference).removeprefix("#/").split("/"):
        node = node.get(step) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _types(node: Mapping[str, Any]) -> set[Any]:
    kind = node.get("type")
    return {*kind} if isinstance(kind, list) else {kind}


def _nodes(node: Any) -> Iterator[Schema]:
    """Walk over a schema and those within it."""
    if isinstance(node, Mapping):
        yield dict(node)
        for keyword in ("items", "additionalProperties"):
            yield from _nodes(node.get(keyword))
        for keyword in ("properties", "$defs"):
            for one in node.get(keyword, {}).values():
                yield from _nodes(one)
        for keyword in ("anyOf", "oneOf", "allOf"):
            for one in node.get(keyword, ()):
                yield from _nodes(one)

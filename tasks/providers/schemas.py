"""
Fit JSON Schemas to what the vendors take, without a change of meaning.

No vendor takes all of JSON Schema; the rest is answered with a 400. So each schema is checked
before it is sent. If the vendor's subset can express it, it is sent in that form. Otherwise OpenAI
gets it without strict mode, and Anthropic's adapter refuses it, so that the next target gets the
task. The caller validates the answer against the original schema.

Sources: the "supported schemas" sections of OpenAI's and Anthropic's pages on structured outputs,
and `anthropic.transform_schema`.
"""

import json
from collections.abc import Iterator, Mapping

from tasks.providers.json_values import JsonBody, JsonFields, as_object

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
_NESTING_KEYWORDS = {"properties", "items", "anyOf", "$defs", "definitions"}
"""The keywords of strict mode that hold further schemas."""
_UNIONS = ("anyOf", "oneOf", "allOf")
_OWN_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties", "patternProperties"},
    "array": {"items", "minItems", "maxItems"},
}
"""Keywords that have a meaning for one type only."""
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "array": (list,),
    "object": (dict,),
}  # fmt: skip
STRICT_DEPTH = 10
"""Objects within objects, in OpenAI's strict mode."""
STRICT_CHARS = 100_000
"""The largest schema, as JSON; OpenAI allows 120,000 in its names and 5,000 properties."""
MAX_OPTIONAL, MAX_UNIONS = 24, 16
"""How many optional properties and unions Anthropic takes."""


class UnsupportedSchema(ValueError):  # noqa: N818 - not a failure: another way or target is used
    """The vendor's subset cannot express the schema."""


def rooted(schema: JsonFields) -> JsonBody:
    """Return the schema with its root written out, if that is a reference into the schema."""
    root = dict(schema)
    seen = {"#"}
    while (reference := root.get("$ref")) is not None and str(reference) not in seen:
        seen.add(str(reference))
        root = {**_resolved(schema, root.pop("$ref")), **root}
    return root


def is_object(schema: JsonFields) -> bool:
    """Return whether the root is an object, on which OpenAI insists."""
    return schema.get("type") == "object" and "anyOf" not in schema


def strict(schema: JsonFields) -> JsonBody | None:
    """
    Return the schema for OpenAI's strict mode.

    Returns:
        The same schema with every object closed; None if strict mode cannot express it.
    """
    if not is_object(schema) or len(json.dumps(schema)) > STRICT_CHARS:
        return None
    try:
        return _strict(schema, 0)
    except UnsupportedSchema:
        return None


def _strict(node: object, depth: int) -> JsonBody:
    if not isinstance(node, dict) or not node.keys() <= _STRICT or depth > STRICT_DEPTH:
        raise UnsupportedSchema
    if "$ref" in node:
        return _strict_reference(node)
    if "type" not in node and "anyOf" not in node:
        raise UnsupportedSchema
    if not all(isinstance(value, str | int | float | None) for value in node.get("enum", ())):
        raise UnsupportedSchema
    if ("array" in _types(node)) != ("items" in node) or node.get("format", "date") not in _FORMATS:
        raise UnsupportedSchema
    copy = dict(node)
    if "object" in _types(node):
        copy |= _strict_object(node)
    for keyword in _NESTING_KEYWORDS & copy.keys():
        copy[keyword] = _strict_nested(keyword, copy[keyword], depth)
    return copy


def _strict_object(node: JsonBody) -> JsonBody:
    properties = node.get("properties", {})
    if node.get("additionalProperties", "properties" not in node) is not False:
        raise UnsupportedSchema  # it has properties of any name
    if {*node.get("required", ())} != properties.keys():  # strict mode has no optional ones
        raise UnsupportedSchema
    return {
        "properties": properties, "required": list(properties), "additionalProperties": False
    }  # fmt: skip


def _strict_nested(keyword: str, value: JsonBody, depth: int) -> object:
    if keyword == "items":
        return _strict(value, depth)
    if keyword == "anyOf":
        return [_strict(one, depth) for one in value]
    deeper = depth + (keyword == "properties")
    return {name: _strict(one, deeper) for name, one in value.items()}


def _strict_reference(node: JsonBody) -> JsonBody:
    """Keep pydantic's annotations beside a reference; strict mode wants the reference alone."""
    if not str(node["$ref"]).startswith("#") or not node.keys() <= _ANNOTATIONS | {"$ref"}:
        raise UnsupportedSchema
    notes = {name: node[name] for name in _ANNOTATIONS & node.keys()}
    if not notes:
        return dict(node)
    return {"anyOf": [{"$ref": node["$ref"]}], **notes}


def closed(schema: JsonFields) -> JsonBody:
    """
    Return the schema in the forms that `anthropic.transform_schema` reads.

    Raises:
        UnsupportedSchema: Anthropic insists on closed objects, and to close these would change
            their meaning; or the schema has what Anthropic refuses: recursion, too many optional
            properties or unions.
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


def _closed(node: object) -> JsonBody:
    if not isinstance(node, dict):
        raise UnsupportedSchema("it allows anything somewhere")
    copy = {name: node[name] for name in node if name not in {"$schema", "$id", "definitions"}}
    if "definitions" in node:
        copy["$defs"] = {**node["definitions"], **node.get("$defs", {})}
    if "$ref" in copy:
        copy["$ref"] = _reference(copy["$ref"])
    if isinstance(copy.get("type"), list):
        types = copy.pop("type")
        apart = {name: copy.pop(name) for name in [*copy] if name not in _ANNOTATIONS | {"$defs"}}
        copy["anyOf"] = [{"type": each, **_of_type(each, apart)} for each in types]
    _refuse_open(copy)
    for name in ("properties", "$defs"):
        if name in copy:
            copy[name] = {key: _closed(one) for key, one in copy[name].items()}
    if "items" in copy:
        copy["items"] = _closed(copy["items"])
    for name in _UNIONS:
        if name in copy:
            copy[name] = [_closed(one) for one in copy[name]]
    return copy


def _refuse_open(node: JsonBody) -> None:
    """Refuse objects whose meaning would change if no property may be added."""
    if "object" in _types(node):
        if isinstance(node.get("additionalProperties"), dict) or "patternProperties" in node:
            raise UnsupportedSchema("it has an object with properties of any name")
        if "properties" not in node and node.get("additionalProperties") is not False:
            raise UnsupportedSchema("it has an object with properties of any name")
        if not {*node.get("required", ())} <= {*node.get("properties", ())}:
            raise UnsupportedSchema("it requires a property that it does not describe")
        if not node.keys().isdisjoint(_UNIONS):
            raise UnsupportedSchema("it has an object described in several places")
    if len(node.get("allOf", ())) > 1:
        raise UnsupportedSchema("it has an object described in several places")


def _of_type(type_: str, keywords: JsonBody) -> JsonBody:
    """Select, among the keywords of several types, those that have a meaning for one."""
    if "enum" in keywords:
        keywords = {**keywords, "enum": [v for v in keywords["enum"] if _is_of(type_, v)]}
    others: set[str] = set()
    for other, names in _OWN_KEYWORDS.items():
        if other != type_:
            others |= names
    return {name: value for name, value in keywords.items() if name not in others}


def _is_of(type_: str, value: object) -> bool:
    if value is None:
        return type_ == "null"
    if isinstance(value, bool):
        return type_ == "boolean"
    return isinstance(value, _PYTHON_TYPES.get(type_, ()))


def _refuse_recursion(schema: JsonBody) -> None:
    """Follow each definition's references once, depth first."""
    references = {
        name: {str(node["$ref"]).removeprefix("#/$defs/") for node in _nodes(one) if "$ref" in node}
        for name, one in schema.get("$defs", {}).items()
    }
    done: set[str] = set()
    is_open: set[str] = set()
    waiting = [(name, False) for name in references]
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
            waiting += [(one, False) for one in references.get(name, ())]


def _reference(to: object) -> str:
    name = str(to).removeprefix("#/definitions/").removeprefix("#/$defs/")
    if name == to or "/" in name:
        raise UnsupportedSchema("it refers to somewhere else than its own definitions")
    return f"#/$defs/{name}"


def _resolved(schema: JsonFields, reference: object) -> JsonFields:
    """Return the part of a schema that a reference names; empty if there is none."""
    node: object = dict(schema)
    for step in str(reference).removeprefix("#/").split("/"):
        node = as_object(node).get(step)
    return as_object(node)


def _types(node: JsonFields) -> set[object]:
    type_ = node.get("type")
    if isinstance(type_, list):
        return {*type_}
    return {type_}


def _nodes(node: object) -> Iterator[JsonBody]:
    """Yield a schema and those within it."""
    if isinstance(node, dict):
        yield dict(node)
        for keyword in ("items", "additionalProperties"):
            yield from _nodes(node.get(keyword))
        for keyword in ("properties", "$defs"):
            for one in node.get(keyword, {}).values():
                yield from _nodes(one)
        for keyword in _UNIONS:
            for one in node.get(keyword, ()):
                yield from _nodes(one)

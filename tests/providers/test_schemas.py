"""What each vendor's subset of JSON Schema can say, and what must not be bent to fit it."""

from typing import Any

import anthropic
import pytest

from breakwater import errors
from tasks.providers.schemas import UnsupportedSchema, closed, rooted, strict
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import answer_of, request


def obj(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object, all of it required unless said otherwise."""
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": needed}


TEXT = {"type": "string"}
FITTING = {
    "flat": obj(a=TEXT, b={"type": ["integer", "null"]}),
    "nested": obj(a=obj(b={"type": "array", "items": obj(c=TEXT)})),
    "a reference": {**obj(a={"$ref": "#/$defs/x"}), "$defs": {"x": obj(b=TEXT)}},
    "a noted reference": {
        **obj(a={"$ref": "#/$defs/x", "description": "the a"}), "$defs": {"x": obj(b=TEXT)},
    },
    "recursion": {"$ref": "#/$defs/x", "$defs": {
        "x": obj(a={"type": "array", "items": {"$ref": "#/$defs/x"}})}},
    "a choice": obj(a={"anyOf": [TEXT, {"type": "null"}]}, b={"type": "string", "enum": ["x"]}),
    "bounds": obj(a={"type": "integer", "minimum": 0}, b={"type": "string", "format": "date"}),
    "no properties": {"type": "object", "properties": {}, "additionalProperties": False},
}  # fmt: skip
LOOSE = {
    "an optional property": obj([], a=TEXT),
    "a default": obj(a={"type": "string", "default": "x"}),
    "a map": obj(a={"type": "object", "additionalProperties": {"type": "integer"}}),
    "a free object": obj(a={"type": "object"}),
    "an open object": {**obj(a=TEXT), "additionalProperties": True},
    "anything": obj(a={}),
    "true": obj(a=True),
    "allOf": obj(a={"allOf": [obj(b=TEXT), obj(c=TEXT)]}),
    "oneOf": obj(a={"oneOf": [TEXT, {"type": "integer"}]}),
    "a length": obj(a={"type": "string", "minLength": 1}),
    "a format of its own": obj(a={"type": "string", "format": "isbn"}),
    "an array of anything": obj(a={"type": "array"}),
    "a reference elsewhere": obj(a={"$ref": "https://example.org/s"}),
    "objects to choose from": obj(a={"enum": [{"b": 1}], "type": "object"}),
    "an array": {"type": "array", "items": TEXT},
    "a choice at the root": {**obj(a=TEXT), "anyOf": [obj(a=TEXT)]},
    "too deep": obj(a=obj(a=obj(a=obj(a=obj(a=obj(a=obj(a=obj(a=obj(a=obj(a=obj(a=TEXT))))))))))),
    "too long": obj(a={"type": "string", "enum": ["x" * 1000 for _ in range(101)]}),
}
REFUSED = {
    "a map": (LOOSE["a map"], "properties of any name"),
    "a pattern of names": (
        obj(a={"type": "object", "properties": {}, "patternProperties": {"^x": TEXT}}),
        "properties of any name",
    ),
    "a free object": (LOOSE["a free object"], "properties of any name"),
    "true": (LOOSE["true"], "anything"),
    "recursion": (FITTING["recursion"], "describes itself"),
    "recursion in two steps": (
        {**obj(a={"$ref": "#/$defs/x"}),
         "$defs": {"x": obj(b={"$ref": "#/$defs/y"}), "y": obj(c={"$ref": "#/$defs/x"})}},
        "describes itself",
    ),
    "a reference elsewhere": (LOOSE["a reference elsewhere"], "somewhere else"),
    "two halves": (LOOSE["allOf"], "several places"),
    "a choice beside properties": ({**obj(a=TEXT), "anyOf": [obj(a=TEXT)]}, "several places"),
    "an undescribed property": (obj(["b"], a=TEXT), "does not describe"),
    "many optional properties": (
        obj([], **{f"p{n}": TEXT for n in range(25)}), "more optional properties"
    ),
    "many unions": (
        obj(**{f"p{n}": {"type": ["string", "null"]} for n in range(17)}), "more optional"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FITTING)
def test_what_strict_mode_can_say_is_said_strictly(name: str) -> None:
    """Every object closed, every property required: OpenAI answers anything else with a 400."""
    said = strict(rooted(FITTING[name]))

    assert said is not None
    for node in objects(said):
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"])


@pytest.mark.parametrize("name", LOOSE)
def test_what_strict_mode_cannot_say_is_not_bent_to_fit(name: str) -> None:
    """It is asked for loosely, as it was written."""
    assert strict(rooted(LOOSE[name])) is None


@pytest.mark.parametrize("name", sorted(FITTING.keys() - {"recursion"}))
def test_what_anthropic_can_say_has_its_objects_closed(name: str) -> None:
    """The API refuses an object that is not."""
    said = anthropic.transform_schema(closed(FITTING[name]))

    assert all(node["additionalProperties"] is False for node in objects(said))


@pytest.mark.parametrize("name", REFUSED)
def test_what_anthropic_cannot_say_is_refused_with_the_reason(name: str) -> None:
    """Closing a map would leave an object that is always empty."""
    schema, why = REFUSED[name]

    with pytest.raises(UnsupportedSchema, match=why):
        closed(schema)


def test_old_definitions_and_lists_of_types_are_put_in_newer_words() -> None:
    """Draft 7's `definitions`, and `type: [a, b]`, which the SDK cannot read."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **obj(a={"$ref": "#/definitions/x"}, b={"type": ["integer", "null"], "enum": [1, None]}),
        "definitions": {"x": TEXT},
    }

    said = anthropic.transform_schema(closed(schema))

    assert said["properties"]["a"] == {"$ref": "#/$defs/x"}
    assert said["properties"]["b"] == {"anyOf": [{"enum": [1]}, {"enum": [None]}]}
    assert said["$defs"] == {"x": TEXT}
    assert "$schema" not in said


def test_a_schema_a_vendor_cannot_take_goes_to_the_next_target(
    server: Loopback, build: Build
) -> None:
    """Refused before anything is sent."""
    provider = build("anthropic", server.url)

    with pytest.raises(errors.UnsupportedInput, match="my-anthropic: it does not take the schema"):
        provider.complete(request(schema=LOOSE["a map"]))
    with pytest.raises(errors.UnsupportedInput, match="anything"):
        provider.complete(request(schema=LOOSE["anything"]))

    assert server.asked == []


def test_openai_takes_a_schema_of_an_object_only(server: Loopback, build: Build) -> None:
    """A server that imitates it may take any."""
    server.answer(answer_of("openai-chat", "[]"))

    with pytest.raises(errors.UnsupportedInput, match="a schema of an object only"):
        build("openai", server.url).complete(request(schema=LOOSE["an array"]))
    build("openai-chat", server.url).complete(request(schema=LOOSE["an array"]))

    assert [
        asked["body"]["response_format"]["json_schema"]["strict"] for asked in server.asked
    ] == [False]


def test_the_callers_schema_is_left_as_it_was() -> None:
    """Other targets, and who validates the answer, read it again."""
    schema = {**obj(a={"$ref": "#/$defs/x"}), "$defs": {"x": obj(b={"type": ["string", "null"]})}}
    before = repr(schema)

    strict(rooted(schema))
    anthropic.transform_schema(closed(schema))

    assert repr(schema) == before


def objects(node: Any) -> list[dict[str, Any]]:
    """Find the objects in a schema."""
    if isinstance(node, list):
        return [found for one in node for found in objects(one)]
    if not isinstance(node, dict):
        return []
    mine = [node] if node.get("type") == "object" else []
    return mine + [found for one in node.values() for found in objects(one)]

"""Instances satisfy their schemas, as the reference validator sees it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from simulator.instances import instance

NODE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "parent": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["name", "parent", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/Node",
}
SCHEMAS = [
    {},
    NODE,
    {"type": "object", "required": ["only_required"]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True},
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False},
    {"type": "string", "minLength": 20},
    {"type": "string", "maxLength": 2},
    {"type": ["null", "integer"]},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"enum": ["red", "green"]},
    {"const": {"a": [1]}},
    {"oneOf": [{"type": "boolean"}, {"type": "string"}]},
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string"}}, "required": ["b"]},
        ]
    },
    {"properties": {"when": {"type": "string", "format": "date"}}},
    {"$defs": {"a/b": {"type": "integer"}}, "$ref": "#/$defs/a~1b"},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
@pytest.mark.parametrize("text", ["", "give 'me that' -17 times"])
def test_an_instance_satisfies_its_schema(schema: dict, text: str) -> None:
    """With and without hints in the text; the same each time."""
    made = instance(schema, text)

    Draft202012Validator(schema).validate(made)
    assert instance(schema, text) == made


@given(st.data())
def test_numbers_stay_within_their_bounds(data: st.DataObject) -> None:
    """Whatever number the text says."""
    kind = data.draw(st.sampled_from(["integer", "number"]))
    low = data.draw(st.integers(-50, 50))
    edges = st.sampled_from([("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")])
    lower, upper = data.draw(edges)
    schema = {"type": kind, lower: low, upper: low + data.draw(st.integers(10, 90))}
    if data.draw(st.booleans()):
        schema["multipleOf"] = data.draw(st.integers(1, 4))

    made = instance(schema, f"{data.draw(st.integers(-200, 200))} times")

    Draft202012Validator(schema).validate(made)


def test_hints_come_from_the_text() -> None:
    """The first number and the first quoted words, as far as the schema lets them."""
    schema = {
        "properties": {
            "n": {"type": "integer"},
            "least": {"type": "integer", "minimum": 10},
            "s": {"type": "string"},
        }
    }

    made = instance(schema, 'call it "Big Ben" and take 7, not 8')

    assert made == {"n": 7, "least": 10, "s": "Big Ben"}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "#"}, "a circle"),
        ({"properties": {"self": {"$ref": "#"}}, "required": ["self"]}, "no finite instance"),
    ],
)
def test_a_schema_without_an_instance_is_an_error(schema: dict, why: str) -> None:
    """A circle of references comes to an end, with a word."""
    with pytest.raises(ValueError, match=why):
        instance(schema)

"""What a schema makes of an answer's text."""

import json
import threading
from typing import Any

import pytest

from breakwater.calls.schema import ParsedAnswer, compile_schema, schema_fault

CANARY = "CANARY-ANSWER"
CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "twins": {"type": "array", "items": {"type": "object", "properties": {"a/b": {"type": "null"}}}},
        "people": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "required": ["name"],
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Oslo"}',
        '\n {"name": "Oslo"}\n',
        '```json\n{"name": "Oslo"}\n```',
        ' ```json\n\n{"name": "Oslo"}``` \n',
    ],
)
def test_an_answer_that_fits_is_data(text: str) -> None:
    """Bare, or in the fence that models are fond of."""
    assert compile_schema(CITY).read(text) == ParsedAnswer({"name": "Oslo"})


@pytest.mark.parametrize(
    ("schema", "text", "data"),
    [({"type": "null"}, "null", None), ({"type": "boolean"}, "false", False), ({}, "[]", [])],
)
def test_data_may_be_anything_that_json_has(schema: Any, text: str, data: Any) -> None:
    """Also what Python takes for nothing."""
    reading = compile_schema(schema).read(text)

    assert (reading.data, reading.fault) == (data, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"Here you are: {CANARY}",
        'Here: ```json\n{"name": "Oslo"}\n```',
        '```\n{"name": "Oslo"}\n```',
        '{"name": "Oslo"',
        '{"name": NaN}',
        '{"name": -Infinity}',
        '{"name": 1e999}',
        '{"name": "\\ud800"}',
        '{"name": ' + "9" * 5000 + "}",
        "[" * 100_000,
    ],
)
def test_what_is_not_json_is_no_answer(text: str) -> None:
    """Nor is what Python reads for it, and no other language does."""
    reading = compile_schema({}).read(text)

    assert (reading.fault, reading.data) == ("is not JSON", None)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({}, "breaks 'required' at the top"),
        ([], "breaks 'type' at the top"),
        ({"name": 3}, "breaks 'type' at /name"),
        ({"name": "x", "twins": [{}, CANARY]}, "breaks 'type' at /twins/1"),
        ({"name": "x", "twins": [{"a/b": CANARY}]}, "breaks 'type' at /twins/0/a~1b"),
        ({"name": "x", "people": {CANARY: "x"}}, "breaks 'type' at /people/*"),
    ],
)
def test_a_fault_names_place_and_rule_and_no_word_of_the_answer(data: Any, fault: str) -> None:
    """It goes to logs; a key that the schema does not name is the answer's own word."""
    reading = compile_schema(CITY).read(json.dumps(data))

    assert reading.fault == fault
    assert CANARY not in repr(reading)


def test_the_model_is_told_in_full() -> None:
    """It knows its own words; five faults are enough, each cut short."""
    reading = compile_schema({"items": {"type": "string"}}).read(
        json.dumps([{"x": "y" * 1000}] * 10)
    )

    assert reading.advice.startswith('at /0: {"x":"yyyy')
    assert reading.advice.count("at /") == 5
    assert len(reading.advice) < 2000


@pytest.mark.parametrize("schema", [{}, {"properties": {"a": {"$ref": "#"}}}])
def test_an_answer_nests_as_deep_as_a_prompt_may(schema: Any) -> None:
    """What is handed out can be handed back in, and no deeper."""
    nested = [json.loads('{"a":' * deep + "1" + "}" * deep) for deep in (64, 65)]

    fits, too_deep = (compile_schema(schema).read(json.dumps(data)) for data in nested)

    assert fits == ParsedAnswer(nested[0])
    assert (too_deep.fault, too_deep.data) == ("nests deeper than 64", None)


def test_formats_are_not_asserted() -> None:
    """As the standard has it by default."""
    assert compile_schema({"format": "date"}).read('"today"').data == "today"


def test_the_vocabulary_of_the_draft_that_is_named_counts() -> None:
    """`items` was a list in draft 7, which has no `prefixItems`."""
    old = "http://json-schema.org/draft-07/schema#"

    assert compile_schema({"$schema": old, "items": [{"type": "null"}]}).read("[1]").fault
    assert not compile_schema({"$schema": old, "prefixItems": [{"type": "null"}]}).read("[1]").fault
    assert compile_schema({"prefixItems": [{"type": "null"}]}).read("[1]").fault


def test_no_shape_is_made_of_a_bad_schema() -> None:
    """The door refuses it before."""
    with pytest.raises(ValueError, match="this is not a valid JSON Schema: at /type"):
        compile_schema({"type": 3})


def test_a_schema_too_large_to_keep_is_as_good() -> None:
    """It is compiled each time."""
    schema = {"enum": ["x" * 100_000, 1]}

    assert schema_fault(schema) == ""
    assert compile_schema(schema).read("1").data == 1


def test_one_shape_reads_for_many_threads() -> None:
    """They share what is kept compiled."""
    shape, readings = compile_schema(CITY), []

    def read(number: int) -> None:
        for _ in range(50):
            readings.append((number, shape.read(json.dumps({"name": str(number)})).data))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(readings) == 400
    assert all(data == {"name": str(number)} for number, data in readings)

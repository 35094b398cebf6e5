"""What a schema may cost: its size at the door, and the time of validating an answer."""

import json
import time
from itertools import pairwise
from typing import Any

import pytest

from breakwater.calls.options import check_options
from breakwater.calls.schema import compile_schema, schema_fault, unfenced
from breakwater.calls.schema_bounds import expansion_of
from breakwater.errors import InvalidOption
from tests.support.growth import grows_no_faster_than_its_input


def doubling(keyword: str, levels: int = 30) -> dict[str, Any]:
    """Return definitions each of which refers to the next one twice."""
    names = [f"a{level}" for level in range(levels + 1)]
    defs: dict[str, Any] = {names[-1]: {"type": "integer"}}
    for name, following in pairwise(names):
        to = {"$ref": f"#/$defs/{following}"}
        held: Any = (
            {"x": to, "y": to} if keyword in {"properties", "dependentSchemas"} else [to] * 2
        )
        defs[name] = {"not": to, "if": to} if keyword == "not" else {keyword: held}
    return {"$defs": defs, "$ref": "#/$defs/a0"}


CIRCLES = {
    "itself": {"$ref": "#"},
    "two definitions": {
        "$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "allOf": {"allOf": [{"$ref": "#"}]},
    "anyOf": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
    "oneOf": {"oneOf": [{"type": "null"}, {"$ref": "#"}]},
    "not": {"not": {"$ref": "#"}},
    "if": {"if": {}, "then": {"$ref": "#"}},
    "dependentSchemas": {"dependentSchemas": {"a": {"$ref": "#"}}},
    "an escaped pointer": {"allOf": [{"$ref": "#/%24defs/a~1b"}], "$defs": {"a/b": {"$ref": "#"}}},
    "a definition nobody uses": {"$defs": {"a": {"$ref": "#/$defs/a"}}},
}  # fmt: skip
TOO_LARGE = {
    **{
        f"doubling {keyword}": (doubling(keyword), "with its references written out; at most 100000")
        for keyword in (
            "allOf", "anyOf", "oneOf", "not", "properties", "dependentSchemas", "prefixItems",
        )
    },
    "bytes": ({"enum": ["x" * 300_000]}, "it has 300014 bytes as JSON; at most 262144 are allowed"),
    "properties": (
        {"properties": {f"p{n}": {} for n in range(15_000)}}, "it has more than 20000 values"
    ),
    "an enumeration": ({"enum": [0] * 30_000}, "it has more than 20000 values"),
    "definitions that nobody uses": (
        {"$defs": {f"d{n}": {"type": "null"} for n in range(8_000)}}, "it has more than 20000 values"
    ),
    "patterns": (
        {"properties": {f"p{n}": {"pattern": f"a{n}"} for n in range(101)}},
        "it has 101 regular expressions; at most 100 are allowed",
    ),
    "patterns of names": (
        {"patternProperties": {f"a{n}": {} for n in range(101)}},
        "it has 101 regular expressions; at most 100 are allowed",
    ),
    "a pattern": (
        {"pattern": "a" * 2_001}, "a regular expression of 2001 characters; at most 2000"
    ),
    "a pattern that repeats": (
        {"pattern": "((a{1,1000}){1,1000}){1,1000}"}, "at /pattern: this regular expression is not"
    ),
}  # fmt: skip


@pytest.mark.parametrize("schema", CIRCLES.values(), ids=CIRCLES.keys())
def test_a_schema_that_refers_to_itself_without_an_end_is_refused(schema: Any) -> None:
    """One that goes down into the answer on its way has an end: the answer's."""
    assert schema_fault(schema) == "it refers to itself without an end"


@pytest.mark.parametrize(("schema", "message"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_a_schema_that_is_too_large_is_refused(schema: Any, message: str) -> None:
    """With its size and the limit, before anything is queued or validated."""
    with pytest.raises(InvalidOption) as refused:
        check_options({"schema": schema})

    assert message in str(refused.value)
    with pytest.raises(InvalidOption) as refused:
        check_options({"tools": [{"name": "f", "parameters": {"type": "object", **schema}}]})
    assert message.removeprefix("it has ").removeprefix("300014 ") in str(refused.value)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([{"name": f"f{n}"} for n in range(513)], "513 tools; at most 512 are allowed"),
        (
            [
                {"name": f"f{n}", "parameters": {"type": "object", "title": "x" * 200_000}}
                for n in range(6)
            ],
            "bytes as JSON; together at most 1048576 are allowed",
        ),
    ],
)
def test_tools_are_bounded_together(tools: Any, message: str) -> None:
    """Each of them is compiled when it is checked."""
    with pytest.raises(InvalidOption, match=message):
        check_options({"tools": tools})


@pytest.mark.parametrize(
    ("schema", "expansion"),
    [
        ({}, 1),
        ({"type": "string"}, 2),
        ({"properties": {"a": {"type": "string"}}}, 5),
        ({"$defs": {"a": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/a"}}}, 9),
        ({"properties": {"a": {"$ref": "#"}}}, None),
        ({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, None),
        ({"$dynamicRef": "#"}, None),
        ({"unevaluatedProperties": False}, None),
        ({"const": {"$ref": "#"}}, 4),
        ({"properties": {"$ref": {"type": "string"}}}, 5),
    ],
)
def test_an_expansion_is_a_sum_or_unknown(schema: Any, expansion: int | None) -> None:
    """Recursion, and references that are not followed, have none."""
    assert expansion_of(schema) == expansion


BACKTRACKING = (
    r"^(\w+\s?)+$", r"^(a+)+$", r"^(a|aa)+$", r"^(a|a)*$", r"^(.*)*$", r"(a*)*b", r"^(a?){50}a{50}$",
    r"(.*,){30}x", r"\s+$", r"^([a-zA-Z0-9._-]+)+@x$", r"^((ab)*)*$", r"(x+x+)+y", r"^(\d+)*$",
    r"^(?=a)(a+)+$", r"^(?!b)(a|aa)+$", r"(?<!b)a*a*a*a*b", r"(x?(?=a)a*)*b", r"^(a+)+\1$",
    r"^(?=(.*a.*)*b)",
)  # fmt: skip


@pytest.mark.parametrize("pattern", BACKTRACKING)
@pytest.mark.parametrize("keyword", ["pattern", "patternProperties", "propertyNames"])
def test_no_regular_expression_holds_a_worker_up(pattern: str, keyword: str) -> None:
    """A near miss that takes a backtracking engine for ever is judged, or ends as a fault."""
    held: Any = {
        "pattern": {"items": {"pattern": pattern}},
        "patternProperties": {"patternProperties": {pattern: False}},
        "propertyNames": {"propertyNames": {"pattern": pattern}},
    }[keyword]
    near_miss = "a" * 5_000 + "!"
    data = [near_miss] if keyword == "pattern" else {near_miss: 1}

    reading = compile_schema(held).read(json.dumps(data))

    assert keyword == "patternProperties" or pattern == r"^(.*)*$" or reading.fault


@pytest.mark.parametrize(
    ("pattern", "fits", "breaks"),
    [
        (r"^\p{Lu}\p{L}*$", "Östersund", "östersund"),
        (r"^(?=.*\d)(?=.*[a-z]).{4,8}$", "abc1", "abcd"),
        (r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
         "a.b@c.de", "a..b@c.de"),
        (r"^(a)\1$", "aa", "ab"),
        (r"^\d+$", "123", "١٢٣"),
        (r"^\u0041\/\-$", "A/-", "B/-"),
        (r"^(?<year>\d{4})$", "2026", "26"),
        (r"^a$", "a", "a\n"),
    ],
)  # fmt: skip
def test_a_pattern_means_what_ecma_262_says(pattern: str, fits: str, breaks: str) -> None:
    """Look-around and back references too, which run in a process of their own."""
    shape = compile_schema({"pattern": pattern})

    assert shape.read(json.dumps(fits)).data == fits
    assert shape.read(json.dumps(breaks)).fault == "breaks 'pattern' at the top"


@pytest.mark.parametrize("pattern", [r"[", r"(", r"a\Z", r"(?#c)a", r"x{2,1}", r"\k<a>", r"*"])
def test_a_pattern_that_is_none_is_refused_by_its_place(pattern: str) -> None:
    """It would be an error only when an answer came."""
    for schema, place in (
        ({"properties": {"a": {"pattern": pattern}}}, "/properties/a/pattern"),
        ({"patternProperties": {pattern: {}}}, "/patternProperties/"),
    ):
        assert schema_fault(schema).startswith(f"at {place}")
        assert "allowed are those of ECMA-262" in schema_fault(schema)


TWICE = {
    "$defs": {
        "e": {"anyOf": [
            {"properties": {"a": {"$ref": "#/$defs/e"}}, "required": ["b"]},
            {"properties": {"a": {"$ref": "#/$defs/e"}}, "required": ["c"]},
        ]}
    },
    "$ref": "#/$defs/e",
}  # fmt: skip


def test_validation_that_takes_too_long_is_ended() -> None:
    """This schema doubles the work at each level of the answer; the worker goes on beside it."""
    began = time.monotonic()

    reading = compile_schema(TWICE).read('{"a":' * 60 + "1" + "}" * 60, limit_s=1.0)

    assert reading.fault.startswith("cannot be validated")
    assert time.monotonic() - began < 60


def test_references_by_name_are_bounded_as_well() -> None:
    """No sum follows an anchor; so the process that judges is ended."""
    defs: dict[str, Any] = {
        f"a{n}": {"$anchor": f"n{n}", "allOf": [{"$ref": f"#n{n + 1}"}] * 2} for n in range(40)
    }
    schema = {"$ref": "#n0", "$defs": {**defs, "a40": {"$anchor": "n40"}}}

    assert schema_fault(schema) == ""
    assert compile_schema(schema).read("1", limit_s=1.0).fault.startswith("cannot be validated")


def test_validation_that_needs_too_much_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process has a bound of its own."""
    monkeypatch.setattr("breakwater.calls.validation.MEMORY_BYTES", 16 * 1024 * 1024)

    reading = compile_schema(TWICE).read(json.dumps([1] * 2_000_000))

    assert reading.fault.startswith("cannot be validated")


@pytest.mark.parametrize(
    ("schema", "data", "fault"),
    [
        (TWICE, {"a": {"d": 1}, "c": 2}, "breaks 'anyOf' at the top"),
        (TWICE, {"a": {"b": 1}, "b": 2}, ""),
        ({"uniqueItems": True}, [10**30 + n for n in range(50)], ""),
        ({"uniqueItems": True}, [10**30, 1, 10**30], "breaks 'uniqueItems' at the top"),
        ({"const": 10**30}, 10**30 + 1, "breaks 'const' at the top"),
        ({"items": {"type": "integer"}}, [1] * 600_000 + ["x"], "breaks 'type' at /600000"),
    ],
)
def test_what_no_sum_bounds_is_judged_as_well(schema: Any, data: Any, fault: str) -> None:
    """In a process of its own: recursion, integers of any size, answers of any length."""
    reading = compile_schema(schema).read(json.dumps(data))

    assert reading.fault == fault
    assert reading.data == (None if fault else data)


@pytest.mark.parametrize(
    ("divisor", "number", "fits"),
    [
        (0.01, 19.99, True), (0.01, 4.02, True), (0.01, 1.11, True), (0.01, 600.03, True),
        (0.01, 4.025, False), (0.01, 1e308, True), (0.01, 1e-9, False), (0.01, -4.02, True),
        (0.1, 0.3, True), (0.1, 0.1 + 0.2, False), (1e-7, 0.3, True), (0.5, 1e308, True),
        (1e-8, 12391239123, True), (0.0001, 0.0075, True), (1, 1e20, True), (3, 10**20, False),
        (3, 3 * 10**40, True), (0.01, 0, True), (2.5, 7.5, True), (1.1, 3.3, True), (7, 7.0, True),
        (2**53, 2**53 + 1, False), (1e308, 1e308, True), (0.123456789, 1e308, False),
    ],
)  # fmt: skip
def test_a_multiple_is_one_by_decimal_arithmetic(divisor: Any, number: Any, fits: bool) -> None:
    """Of the numbers as they are written, and not of the nearest binary fractions."""
    reading = compile_schema({"multipleOf": divisor}).read(json.dumps(number))

    assert reading.fault == ("" if fits else "breaks 'multipleOf' at the top")


@pytest.mark.parametrize(
    ("schema", "data", "fits"),
    [
        ({"const": 1}, 1.0, True), ({"const": 1}, True, False), ({"const": 0}, False, False),
        ({"const": {"a": 1}}, {"a": 1.0}, True), ({"const": [1]}, [True], False),
        ({"enum": [1]}, 1.0, True), ({"enum": [1]}, True, False), ({"enum": [False]}, 0, False),
        ({"enum": [[0]]}, [False], False), ({"enum": [[0]]}, [0.0], True), ({"enum": [""]}, None, False),
        ({"uniqueItems": True}, [1, True, 0, False, "1", None], True),
        ({"uniqueItems": True}, [1, 1.0], False), ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], False),
        ({"uniqueItems": True}, [[1], [True]], True),
        ({"type": "integer"}, 1.0, True), ({"type": "integer"}, 1.5, False), ({"type": "integer"}, 1e300, True),
        ({"type": "integer"}, True, False), ({"type": "number"}, False, False),
        ({"const": 2**53 + 1}, 2**53, False), ({"const": 2**53 + 1}, 2**53 + 1, True),
        ({"maximum": 2**53}, 2**53 + 1, False), ({"exclusiveMinimum": 0.1}, 0.1, False),
        ({"minimum": 10**30}, 10**30 - 1, False), ({"minimum": 10**30}, 1e30, True),
        ({"maxLength": 1}, "😀", True), ({"minLength": 2}, "😀", False),
    ],
)  # fmt: skip
def test_numbers_and_booleans_are_equal_as_json_schema_says(
    schema: Any, data: Any, fits: bool
) -> None:
    """1 and 1.0 are one number, true is none, and integers are exact at any size."""
    assert (compile_schema(schema).read(json.dumps(data)).fault == "") == fits


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("```json\n1\n```", "1\n"),
        (" ```json  \n1``` ", "1"),
        ("```json\n\n1```", "\n1"),
        ("```json 1```", None),
        ("```json x\n1```", None),
        ("```\n1\n```", None),
        ("```json```", None),
        ("```json", None),
        ("1", None),
    ],
)
def test_a_fence_is_taken_off_if_there_is_nothing_else(text: str, inside: str | None) -> None:
    """Models are fond of it."""
    assert unfenced(text) == (text if inside is None else inside)


@pytest.mark.parametrize("text", ["\n", " ", "`", "```json\n", "{", '"', "[1,", "\\"])
def test_a_text_is_read_in_time_that_grows_with_its_length(text: str) -> None:
    """Also one that only looks like JSON in a fence."""
    shape = compile_schema({})

    assert grows_no_faster_than_its_input(lambda size: shape.read("```json" + text * size))

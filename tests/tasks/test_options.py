"""The options `schema`, `tools` and `tool_choice` at the door."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from breakwater.calls.call import CompletionCall
from breakwater.calls.options import OPTIONS
from breakwater.content import Tool
from breakwater.errors import InvalidOption, InvalidPrompt
from tasks import complete
from tests.support.server_tools import SERVER_TOOLS

CANARY = "CANARY-PROMPT"
WEATHER = {
    "name": "weather",
    "description": "What the sky does",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


class City(BaseModel):
    name: str
    people: int


class Unwritable(BaseModel):
    act: Callable[[], None]


def refused(**options: Any) -> str:
    with pytest.raises(InvalidOption) as raised:
        CompletionCall.of("coder", "hi", options)
    assert CANARY not in repr(raised.value)
    return str(raised.value)


def test_tools_and_a_choice_are_taken() -> None:
    """As the adapters get them."""
    call = CompletionCall.of(
        "coder", "hi", {"tools": [WEATHER, {"name": "now"}], "tool_choice": "weather"}
    )

    assert call.tools == (Tool(**WEATHER), Tool("now"))  # type: ignore[arg-type]
    assert call.tool_choice == "weather"


def test_without_a_choice_the_model_chooses() -> None:
    """Among all tools, or none."""
    assert CompletionCall.of("coder", "hi", {"tools": [WEATHER]}).tool_choice == "auto"


def test_a_schema_is_taken_as_it_is() -> None:
    """A copy of it: what the caller does with his own later changes nothing."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}

    call = CompletionCall.of("coder", "hi", {"schema": schema})
    schema["type"] = "array"

    assert call.schema == {"type": "object", "properties": {"a": {"type": "integer"}}}


def test_a_pydantic_model_is_taken_as_its_schema() -> None:
    """At the producer, which has it."""
    assert CompletionCall.of("coder", "hi", {"schema": City}).schema == City.model_json_schema()


def test_no_model_class_stays_in_a_signature() -> None:
    """The later stages of a canvas are queued as JSON, by a worker that has no such class."""
    for signature in (
        complete.s("coder", "hi", schema=City),
        complete.si("coder", "hi", schema=City),
        complete.signature(("coder", "hi"), {"schema": City}),
        complete.subtask(args=("coder", "hi"), kwargs={"schema": City}),
    ):
        assert json.loads(json.dumps(signature))["kwargs"]["schema"] == City.model_json_schema()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict, "the class dict is not a pydantic model"),
        (Unwritable, "the class Unwritable has no JSON Schema (PydanticInvalidForJsonSchema)"),
    ],
)
def test_a_class_that_has_no_schema_is_refused(model: type, message: str) -> None:
    """By its name, before anything is queued."""
    assert message in refused(schema=model)
    with pytest.raises(InvalidOption, match="schema: the class"):
        complete.s("coder", "hi", schema=model)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], "schema is a list; it must be an object"),
        (True, "schema is a bool; it must be an object"),
        ({"type": CANARY}, "schema is not a valid JSON Schema: at /type: it breaks 'anyOf'"),
        ({"properties": {"a": {"minimum": "x"}}}, "at /properties/a/minimum: it breaks 'type'"),
        ({"pattern": "["}, "at /pattern: this regular expression is not supported; allowed are"),
        ({"$schema": "http://a.b/c"}, "names an unknown draft"),
        ({"$schema": 3}, "names an unknown draft"),
        ({"$ref": "#/$defs/a"}, "a $ref leads to no schema"),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}}, "a $ref leads to no schema"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/a"}}}, "a $ref leads to no schema"),
        ({"$id": "http://[", "allOf": [{"$ref": "#a"}]}, "a $ref leads to no schema"),
        ({"enum": [3], "$ref": "#/enum/0"}, "a $ref leads to no schema"),
        ({"$ref": "#"}, "it refers to itself without an end"),
        ({"default": float("inf")}, "schema cannot be written as JSON"),
        (json.loads('{"not":' * 70 + "{}" + "}" * 70), "schema nests deeper than 64"),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused(schema: Any, message: str) -> None:
    """With place and rule, as an answer's faults are told."""
    assert message in refused(schema=schema)


@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2019-09/schema"]
)  # fmt: skip
def test_older_drafts_are_taken(draft: str) -> None:
    """If the schema names one."""
    schema = {"$schema": draft, "definitions": {"a": {"type": "string"}}, "$ref": "#/definitions/a"}

    assert CompletionCall.of("coder", "hi", {"schema": schema}).schema == schema


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (CANARY, "tools[1]: it is a str"),
        ({"name": f"{CANARY}!"}, "tools[1]: it has no valid name; allowed is [A-Za-z0-9_-]{1,64}"),
        ({"name": "x" * 65}, "tools[1]: it has no valid name"),
        ({}, "tools[1]: it has no valid name"),
        ({"name": "auto"}, "'auto' cannot be a tool's name"),
        ({"name": "weather"}, "tools[1]: there is a tool 'weather' already"),
        ({"name": "f", "description": 3}, "its description is a int"),
        ({"name": "f", "description": "\ud800"}, "lone surrogate"),
        ({"name": "f", "strict": True}, "unknown keys ['strict']"),
        ({"name": "f", "parameters": []}, "its parameters: it is a list"),
        ({"name": "f", "parameters": City}, "give its JSON Schema (model_json_schema())"),
        ({"name": "f", "parameters": {"type": "array"}}, "the schema of an object"),
        ({"name": "f", "parameters": {"type": "object", "required": 3}}, "at /required: it breaks 'type'"),
    ],
)  # fmt: skip
def test_a_tool_that_no_vendor_takes_is_refused(tool: Any, message: str) -> None:
    """With its place in the list."""
    assert message in refused(tools=[WEATHER, tool])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": WEATHER}, "tools is a dict; it must be a list"),
        ({"tool_choice": "auto"}, "tool_choice needs tools"),
        ({"tools": [], "tool_choice": "auto"}, "tool_choice needs tools"),
        ({"tools": [WEATHER], "tool_choice": "wether"}, "one of auto, none, required, weather (did you"),
        ({"tools": [WEATHER], "tool_choice": 3}, "tool_choice is a int"),
    ],
)  # fmt: skip
def test_a_choice_that_is_none_is_refused(options: dict[str, Any], message: str) -> None:
    """With the choices there are."""
    assert message in refused(**options)


@pytest.mark.parametrize("tool", SERVER_TOOLS, ids=str)
def test_a_tool_that_a_vendor_runs_is_refused_by_its_name(tool: dict[str, Any]) -> None:
    """The others of a chain do not have it."""
    kind = tool.get("type") or next(iter(tool))

    assert f"{kind!r} is a tool that one vendor runs itself" in refused(tools=[tool])


def test_faults_of_all_options_are_told_together() -> None:
    """Also of those that hang together."""
    told = refused(schema=[], tools=[{}, {}], tool_choice="x", stream="yes")

    assert told.count(";") >= 4
    for part in ("schema is", "tools[0]", "tools[1]", "tool_choice is 'x'", "stream is a str"):
        assert part in told


@pytest.mark.parametrize(
    "options",
    [
        {"tools": [WEATHER], "tool_choice": "required", "stream": True},
        {"schema": City, "params": {"temperature": 0}, "deadline_s": 3},
    ],
)
def test_the_options_that_travel_are_those_that_were_given(options: dict[str, Any]) -> None:
    """A worker that checks them again reads the very same call."""
    call = CompletionCall.of("coder", "hi", options)

    sent = json.loads(json.dumps(complete.s("coder", "hi", **options)))["kwargs"]

    assert CompletionCall.of("coder", "hi", sent) == call


def nested(kind: type) -> Any:
    value: Any = 1
    for _ in range(100_000):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("name", [*OPTIONS, "another"])
@pytest.mark.parametrize("kind", [list, dict])
def test_no_option_that_nests_without_an_end_is_an_error_of_another_kind(
    name: str, kind: type
) -> None:
    """Python's own limit is none of the caller's business."""
    assert name in refused(**{name: nested(kind)})


def test_no_prompt_that_nests_without_an_end_is_an_error_of_another_kind() -> None:
    """Wherever it does."""
    row, chain = nested(list), nested(dict)
    call = {"id": "c", "name": "w", "arguments": chain}
    for prompt in (
        row,
        [chain],
        [{"role": "user", "content": row}],
        [{"role": "user", "content": [chain]}],
        [{"role": "user", "content": [{"type": "text", "text": chain}]}],
        [{"role": "user", "content": [{"type": "image", "url": chain}]}],
        [{"role": row, "content": "x"}],
        [{"role": "assistant", "content": "", "tool_calls": row}],
        [{"role": "assistant", "content": "", "tool_calls": [call]}],
        {"task_id": "t", "role": "r", "text": row, "attempts": []},
    ):
        with pytest.raises(InvalidPrompt):
            CompletionCall.of("coder", prompt, {})


def test_faults_are_named_up_to_a_number() -> None:
    """A hundred thousand of them would be a message of megabytes, and take seconds to word."""
    many = {f"name{number}": 1 for number in range(100_000)}

    assert "and 99990 more unknown options" in refused(**many)
    assert len(refused(params=many)) < 5_000
    assert len(refused(tools=[{"name": "f", **many}])) < 5_000
    assert len(refused(params={"reasoning_effort": "x" * 1_000_000})) < 1_000
    with pytest.raises(InvalidPrompt) as raised:
        CompletionCall.of("coder", [{"role": "user", "content": "x", **many}], {})
    assert len(str(raised.value)) < 5_000

"""Answers that are instances of a schema, and those that are not."""

from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from pydantic import BaseModel, field_validator

from breakwater.errors import ContentFiltered, InvalidOption, SchemaViolated
from breakwater.langchain import ChatBreakwater
from breakwater.langchain.tools import Parser
from simulator.client import Simulator

pytestmark = pytest.mark.usefixtures("simulator")


class Even(BaseModel):
    """An even number."""

    n: int

    @field_validator("n")
    @classmethod
    def _even(cls, n: int) -> int:
        if n % 2:
            raise ValueError("odd")
        return n


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
def test_a_pydantic_class_comes_back_as_its_instance(method: Any) -> None:
    """Whichever way it is asked for."""
    model = ChatBreakwater(role="local").with_structured_output(Even, method=method)

    assert model.invoke("Give me 4") == Even(n=4)
    assert list(model.stream("Give me 6"))[-1] == Even(n=6)


@pytest.mark.parametrize("schema", [Even, Even.model_json_schema()])
def test_the_raw_answer_comes_beside_the_value(schema: Any) -> None:
    """With who gave it, and what it cost."""
    model = ChatBreakwater(role="local").with_structured_output(schema, include_raw=True)

    told = model.invoke("Give me 4")

    assert told["parsed"] in (Even(n=4), {"n": 4})
    assert told["parsing_error"] is None
    assert isinstance(told["raw"], AIMessage)
    assert told["raw"].response_metadata["provider"] == "local"


def test_what_no_target_can_satisfy_is_an_error_of_ours(simulator: Simulator) -> None:
    """Each was asked again before; the attempts tell."""
    for label in ("local", "gpt"):
        simulator.settings(label, answer='{"n": "many"}')

    with pytest.raises(SchemaViolated) as failed:
        ChatBreakwater(role="coder").with_structured_output(Even).invoke("hi")

    assert {attempt["provider"] for attempt in failed.value.attempts} == {"local", "gpt"}


@pytest.mark.parametrize("include_raw", [False, True])
def test_a_validator_of_the_class_that_refuses_is_told(include_raw: bool) -> None:
    """No JSON Schema has it, so the worker cannot know; the raw answer is there to look at."""
    model = ChatBreakwater(role="local").with_structured_output(Even, include_raw=include_raw)

    if not include_raw:
        with pytest.raises(ValueError, match="odd"):
            model.invoke("Give me 3")
        return
    told = model.invoke("Give me 3")
    assert told["parsed"] is None
    assert "odd" in str(told["parsing_error"])
    assert told["raw"].text == '{"n":3}'


def test_a_refusal_is_an_error_of_ours(simulator: Simulator) -> None:
    """It says why, not that `None` is no number."""
    simulator.settings("local", finish="refusal")

    with pytest.raises(ContentFiltered, match="refuses to answer"):
        ChatBreakwater(role="local").with_structured_output(Even).invoke("hi")


def test_an_answer_that_calls_a_tool_instead_has_no_value() -> None:
    """Where tools are bound beside a schema a model may choose either."""
    tools = [{"name": "look", "parameters": {"type": "object", "properties": {}}}]
    model = ChatBreakwater(role="local").bind(
        tools=tools, tool_choice="required", schema=Even.model_json_schema()
    )

    with pytest.raises(OutputParserException, match="finish_reason is 'tool_calls'"):
        Parser(Even)(model.invoke("hi"))


def test_an_option_that_it_does_not_have_is_named() -> None:
    """LangChain's own models take any, and some ignore them."""
    with pytest.raises(InvalidOption, match="does not take tol"):
        ChatBreakwater(role="local").with_structured_output(Even, tol=1)

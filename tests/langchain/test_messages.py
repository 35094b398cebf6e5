"""LangChain's messages, tools and schemas as ours, in every form that they come in."""

from typing import Any, TypedDict

import pytest
from google.genai import types
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import Tool, tool
from pydantic import BaseModel

from breakwater.calls.call import CompletionCall
from breakwater.errors import InvalidOption, InvalidPrompt
from breakwater.langchain.answers import message_of
from breakwater.langchain.messages import prompt_of
from breakwater.langchain.tools import choice_of, schema_of, tool_of
from tests.support.server_tools import SERVER_TOOLS

B64 = "aGVsbG8="
IMAGE = {"type": "image", "data": B64, "media_type": "image/png"}
PAPER = {"type": "document", "data": B64, "media_type": "application/pdf"}
CALL = {"id": "c1", "name": "add", "args": {"a": 1}}
DATA_URI = f"data:image/png;base64,{B64}"
RESULT = {
    "task_id": "t", "role": "coder", "text": "hi", "data": None, "tool_calls": [],
    "provider": "claude", "model": "m-1", "finish_reason": "stop",
    "usage": {"input_tokens": 10, "output_tokens": 7, "cached_input_tokens": 4,
              "cache_write_tokens": 3, "reasoning_tokens": 2},
    "cost_usd": "0.01", "latency_ms": 5, "queued_ms": 1, "request_id": "r", "attempts": [],
}  # fmt: skip


def test_each_speaker_has_its_role() -> None:
    """Human, AI, system and tool; the call's arguments are an object, its result names it."""
    messages = [
        SystemMessage("be brief"),
        HumanMessage("1+1?", name="ann"),
        AIMessage("", tool_calls=[CALL]),
        ToolMessage("2", tool_call_id="c1"),
        ChatMessage("thanks", role="user"),
    ]

    assert prompt_of(messages) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "",
         "tool_calls": [{"id": "c1", "name": "add", "arguments": {"a": 1}}]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "user", "content": "thanks"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "image", "base64": B64, "mime_type": "image/png"}, IMAGE),
        ({"type": "image", "url": "https://x/y"}, {"type": "image", "url": "https://x/y"}),
        ({"type": "image_url", "image_url": {"url": DATA_URI}}, IMAGE),
        (
            {"type": "image_url", "image_url": "https://x/y"},
            {"type": "image", "url": "https://x/y"},
        ),
        ({"type": "image", "source_type": "base64", "data": B64, "mime_type": "image/png"}, IMAGE),
        (
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": B64},
            },
            IMAGE,
        ),
        ({"type": "file", "base64": B64, "mime_type": "application/pdf"}, PAPER),
        (
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{B64}"},
            },
            {**PAPER, "name": "a.pdf"},
        ),
        (
            {
                "type": "document",
                "title": "a.pdf",
                "source": {"type": "base64", "media_type": "application/pdf", "data": B64},
            },
            {**PAPER, "name": "a.pdf"},
        ),
        (
            {"type": "file", "url": "https://x/y.pdf"},
            {"type": "document", "url": "https://x/y.pdf"},
        ),
    ],
)
def test_a_picture_or_paper_arrives_in_whatever_form_it_comes(
    block: dict[str, Any], part: dict[str, Any]
) -> None:
    """LangChain's standard blocks of both versions, OpenAI's and Anthropic's own."""
    told = prompt_of([HumanMessage([{"type": "text", "text": "look"}, block])])

    assert told == [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]


def test_texts_alone_are_one_text() -> None:
    """A list of text blocks is a string; a paper of plain text is text, too."""
    paper = {"type": "text-plain", "text": "b", "mime_type": "text/plain"}

    assert prompt_of([HumanMessage(["a", paper])])[0]["content"] == "ab"
    assert prompt_of([AIMessage([])])[0]["content"] == ""


def test_another_vendors_thoughts_and_calls_are_not_told_again() -> None:
    """What a model's own turn holds beside text is dropped; its calls are beside the text already."""
    content: list[str | dict[str, Any]] = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "I add."},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
    ]

    told = prompt_of([AIMessage(content, tool_calls=[CALL])])[0]

    assert told["content"] == "I add."
    assert [call["id"] for call in told["tool_calls"]] == ["c1"]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (HumanMessage([{"type": "audio", "base64": B64, "mime_type": "audio/wav"}]), "'audio'"),
        (HumanMessage([{"type": "image", "file_id": "f"}]), "a file that was uploaded"),
        (HumanMessage([{"type": "strange"}]), "'strange'"),
        (FunctionMessage("x", name="f"), "message 0 is a FunctionMessage"),
    ],
)
def test_what_no_prompt_has_is_refused_by_name(message: BaseMessage, says: str) -> None:
    """Before anything is enqueued; never dropped in silence, and its content not repeated."""
    with pytest.raises(InvalidPrompt, match=says) as refused:
        prompt_of([message])

    assert B64 not in str(refused.value)


def test_a_signature_comes_back_with_its_call() -> None:
    """Gemini refuses a tool's result without the signature that came with the call."""
    call = {"id": "c1", "name": "add", "arguments": {"a": 1}, "signature": "sig"}

    answer = message_of({**RESULT, "text": "", "tool_calls": [call]})

    assert answer.tool_calls == [{**CALL, "type": "tool_call"}]
    assert prompt_of([answer])[0]["tool_calls"] == [call]


def test_usage_counts_all_and_tells_the_parts() -> None:
    """`total_tokens` is the sum; cached and written input, and reasoning, are details of it."""
    usage = message_of(RESULT).usage_metadata

    assert usage == {
        "input_tokens": 10, "output_tokens": 7, "total_tokens": 17,
        "input_token_details": {"cache_read": 4, "cache_creation": 3},
        "output_token_details": {"reasoning": 2},
    }  # fmt: skip


class Point(BaseModel):
    """A point."""

    x: int


class Place(TypedDict):
    """A place."""

    x: int


@tool
def add(a: int) -> int:
    """Add one."""
    return a + 1


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (add, "add"),
        (Point, "Point"),
        (Place, "Place"),
        (Point.model_json_schema(), "Point"),
        ({"name": "p", "description": "d", "input_schema": {"type": "object"}}, "p"),
        ({"type": "custom", "name": "p", "input_schema": {"type": "object"}}, "p"),
        ({"type": "function", "function": {"name": "p", "parameters": {"type": "object"}}}, "p"),
    ],
)
def test_a_tool_has_one_form(form: Any, name: str) -> None:
    """Name, description where there is one, and the schema of an object."""
    ours = tool_of(form)

    assert ours["name"] == name
    assert set(ours) <= {"name", "description", "parameters"}
    assert ours["parameters"]["type"] == "object"


@pytest.mark.parametrize("tool", SERVER_TOOLS, ids=str)
def test_a_vendors_own_tool_is_refused(tool: dict[str, Any]) -> None:
    """A web search that OpenAI runs is no tool of a chain that goes on to Anthropic."""
    kind = tool.get("type") or next(iter(tool))

    with pytest.raises(InvalidOption, match=f"a tool of type '{kind}' is run by one vendor"):
        tool_of(tool)


def test_a_tool_of_googles_sdk_is_refused() -> None:
    """An object of its types, not a dict."""
    with pytest.raises(InvalidOption, match="a tool of type 'google_search' is run by one vendor"):
        tool_of(types.Tool(google_search=types.GoogleSearch()))


def test_a_custom_tool_of_langchains_is_refused() -> None:
    """OpenAI's custom tools take a text in a grammar, and no other vendor has them."""
    custom = Tool("sql", lambda text: text, "Run SQL", metadata={"type": "custom_tool"})

    with pytest.raises(InvalidOption, match="is not a valid tool"):
        tool_of(custom)


@pytest.mark.parametrize("thing", [{}, {"toolChoice": {}}, {"description": "SECRET"}, 5, "add"])
def test_what_is_no_tool_is_refused_and_not_quoted(thing: Any) -> None:
    """LangChain's own error would quote all of it."""
    with pytest.raises(InvalidOption, match="is not a valid tool") as caught:
        tool_of(thing)

    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        (None, None), ("auto", "auto"), ("none", "none"), (False, "none"), ("any", "required"),
        (True, "required"), ("required", "required"), ("add", "add"),
        ({"type": "function", "function": {"name": "add"}}, "add"),
        ({"type": "tool", "name": "add"}, "add"), ({"type": "any"}, "required"),
    ],
)  # fmt: skip
def test_a_tool_choice_has_one_word(said: Any, ours: str | None) -> None:
    """LangChain's `any`, and the forms of OpenAI and Anthropic."""
    assert choice_of(said, [{"name": "add"}]) == ours


def test_a_choice_of_no_tool_names_those_there_are() -> None:
    """A typo is told at `bind_tools`, not paid for."""
    with pytest.raises(InvalidOption, match="'ad' is not one of auto, none, required, add"):
        choice_of("ad", [{"name": "add"}])


def test_a_schema_needs_no_title() -> None:
    """LangChain wants a name for a schema; ours does not, so a bare one is taken as it is."""
    bare = {"type": "object", "properties": {"x": {"type": "integer"}}}

    assert schema_of(bare) == bare
    assert schema_of(Point)["properties"]["x"]["type"] == "integer"


def test_what_is_translated_passes_the_door() -> None:
    """The shapes are those that `complete` takes."""
    messages = [HumanMessage("hi"), AIMessage("hello"), HumanMessage("bye")]

    assert [m.role for m in CompletionCall.of("coder", prompt_of(messages), {}).messages] == [
        "user", "assistant", "user",
    ]  # fmt: skip


def test_tokens_that_nobody_counted_are_left_out() -> None:
    """LangChain's metadata takes no null, and 0 would be a free call."""
    counts = dict.fromkeys(RESULT["usage"])

    assert message_of({**RESULT, "usage": counts}).usage_metadata is None
    known = message_of({**RESULT, "usage": {**counts, "input_tokens": 3, "output_tokens": 2}})
    assert known.usage_metadata == {
        "input_tokens": 3, "output_tokens": 2, "total_tokens": 5,
        "input_token_details": {}, "output_token_details": {},
    }  # fmt: skip

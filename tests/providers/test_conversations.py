"""Whole conversations in each vendor's form: media, tool calls, tool results, and what is refused."""

from base64 import b64encode
from typing import Any

import pytest

from breakwater import errors
from breakwater.content import Media, Message, Tool, ToolCall
from tasks.providers.base import Request as Asked
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import answer_of

PNG = b64encode(b"\x89PNG").decode()
PDF = b64encode(b"%PDF-1.7").decode()
PICTURE = Media("image", data=PNG, media_type="image/png")
PAPER = Media("document", data=PDF, media_type="application/pdf", name="a.pdf")
SIGNED = b64encode(b"signed").decode()
FOREIGN = "a:call/of another vendor"
OTHER_ID = "call_cf8fcdc1f4edc62c32519b53"
TALK = [
    Message("user", ("look", Media("image", url="https://e.org/p.png"), PICTURE, PAPER)),
    Message(
        "assistant",
        "",
        tool_calls=(
            ToolCall("call_1", "add", {"a": 1}, SIGNED),
            ToolCall(FOREIGN, "now", {}),
        ),
    ),
    Message("tool", "3", tool_call_id="call_1", name="add"),
    Message("tool", "noon", tool_call_id=FOREIGN, name="now"),
    Message("user", "and?"),
    Message("assistant", "again", tool_calls=(ToolCall("call_2", "now", {}),)),
    Message("tool", "one", tool_call_id="call_2", name="now"),
]
ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
NOW = Tool("now")
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
NONE: dict[str, Any] = {"type": "object", "properties": {}}
CLOSED = {**NONE, "additionalProperties": False, "required": []}
SENT: dict[str, Any] = {
    "anthropic": [
        {"role": "user", "content": [
            {"type": "text", "text": "look"},
            {"type": "image", "source": {"type": "url", "url": "https://e.org/p.png"}},
            {"type": "image", "source": {
                "type": "base64", "media_type": "image/png", "data": PNG}},
            {"type": "document", "title": "a.pdf", "source": {
                "type": "base64", "media_type": "application/pdf", "data": PDF}},
        ]},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}},
            {"type": "tool_use", "id": OTHER_ID, "name": "now", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": "3"},
            {"type": "tool_result", "tool_use_id": OTHER_ID, "content": "noon"},
        ]},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": [
            {"type": "text", "text": "again"},
            {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_2", "content": "one"},
        ]},
    ],
    "openai": [
        {"role": "user", "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": "https://e.org/p.png", "detail": "auto"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}",
             "detail": "auto"},
            {"type": "input_file", "filename": "a.pdf",
             "file_data": f"data:application/pdf;base64,{PDF}"},
        ]},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": OTHER_ID, "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "3"},
        {"type": "function_call_output", "call_id": OTHER_ID, "output": "noon"},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "again"},
        {"type": "function_call", "call_id": "call_2", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_2", "output": "one"},
    ],
    "openai-chat": [
        {"role": "user", "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "https://e.org/p.png"}},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"type": "file", "file": {
                "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
        ]},
        {"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "id": "call_1",
             "function": {"name": "add", "arguments": '{"a": 1}'}},
            {"type": "function", "id": OTHER_ID, "function": {"name": "now", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        {"role": "tool", "tool_call_id": OTHER_ID, "content": "noon"},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "again", "tool_calls": [
            {"type": "function", "id": "call_2", "function": {"name": "now", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "call_2", "content": "one"},
    ],
    "google": [
        {"role": "user", "parts": [
            {"text": "look"},
            {"fileData": {"fileUri": "https://e.org/p.png", "mimeType": "image/png"}},
            {"inlineData": {"mimeType": "image/png", "data": PNG}},
            {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
        ]},
        {"role": "model", "parts": [
            {"functionCall": {"id": "call_1", "name": "add", "args": {"a": 1}},
             "thoughtSignature": SIGNED},
            {"functionCall": {"id": OTHER_ID, "name": "now", "args": {}}},
        ]},
        {"role": "user", "parts": [
            {"functionResponse": {"id": "call_1", "name": "add", "response": {"output": "3"}}},
            {"functionResponse": {"id": OTHER_ID, "name": "now", "response": {"output": "noon"}}},
        ]},
        {"role": "user", "parts": [{"text": "and?"}]},
        {"role": "model", "parts": [
            {"text": "again"},
            {"functionCall": {"id": "call_2", "name": "now", "args": {}},
             "thoughtSignature": b64encode(b"skip_thought_signature_validator").decode()},
        ]},
        {"role": "user", "parts": [
            {"functionResponse": {"id": "call_2", "name": "now", "response": {"output": "one"}}},
        ]},
    ],
}  # fmt: skip
TOOLS: dict[str, Any] = {
    "anthropic": [
        {"name": "add", "description": "Adds.", "input_schema": PARAMETERS},
        {"name": "now", "input_schema": NONE},
    ],
    "openai": [
        {"type": "function", "name": "add", "description": "Adds.", "parameters": PARAMETERS,
         "strict": False},
        {"type": "function", "name": "now", "parameters": CLOSED, "strict": True},
    ],
    "openai-chat": [
        {"type": "function",
         "function": {"name": "add", "description": "Adds.", "parameters": PARAMETERS}},
        {"type": "function", "function": {"name": "now", "parameters": NONE}},
    ],
    "google": [{"functionDeclarations": [
        {"name": "add", "description": "Adds.", "parametersJsonSchema": PARAMETERS},
        {"name": "now"},
    ]}],
}  # fmt: skip
CHOICES: dict[str, dict[str, Any]] = {
    "anthropic": {
        "none": {"type": "none"}, "required": {"type": "any"},
        "add": {"type": "tool", "name": "add"},
    },
    "openai": {
        "none": "none", "required": "required", "add": {"type": "function", "name": "add"},
    },
    "openai-chat": {
        "none": "none", "required": "required",
        "add": {"type": "function", "function": {"name": "add"}},
    },
    "google": {
        "none": {"mode": "NONE"}, "required": {"mode": "ANY"},
        "add": {"mode": "ANY", "allowedFunctionNames": ["add"]},
    },
}  # fmt: skip


def test_a_conversation_goes_out_in_the_vendors_form(
    adapter: str, server: Loopback, build: Build
) -> None:
    """
    Media, two calls and two results in one turn, a call of another vendor's.

    Its id becomes one that they take, the same in call and result; its signature Google's dummy.
    """
    server.answer(answer_of(adapter))

    build(adapter, server.url).complete(Asked(TALK, "m-1", tools=[ADD, NOW]))

    sent = server.asked[0]["body"]
    field = {"openai": "input", "google": "contents"}.get(adapter, "messages")
    assert plain(sent[field]) == plain(SENT[adapter])
    assert plain(sent["tools"]) == TOOLS[adapter]
    assert not {"tool_choice", "toolConfig"} & sent.keys(), "auto is what they do anyway"


def test_parameters_that_are_a_reference_arrive_whole(
    adapter: str, server: Loopback, build: Build
) -> None:
    """As pydantic writes a model that holds itself; the vendors want an object at the root."""
    server.answer(answer_of(adapter))
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    tool = Tool("walk", "", {"$ref": "#/$defs/node", "$defs": {"node": node}})

    build(adapter, server.url).complete(Asked([Message("user", "hi")], "m-1", tools=[tool]))

    (told,) = plain(server.asked[0]["body"]["tools"])
    told = told["functionDeclarations"][0] if adapter == "google" else told.get("function", told)
    whole = told.get("input_schema") or told.get("parameters") or told["parametersJsonSchema"]
    assert whole == {**node, "$defs": {"node": node}}


@pytest.mark.parametrize("choice", ["none", "required", "add"])
def test_the_choice_of_a_tool_goes_out_in_the_vendors_form(
    choice: str, adapter: str, server: Loopback, build: Build
) -> None:
    """The tools go along with `none`, too: they are part of the conversation, and of its cache."""
    server.answer(answer_of(adapter))

    build(adapter, server.url).complete(
        Asked([Message("user", "hi")], "m-1", tools=[ADD, NOW], tool_choice=choice)
    )

    sent = server.asked[0]["body"]
    told = (
        sent["toolConfig"]["functionCallingConfig"] if adapter == "google" else sent["tool_choice"]
    )
    assert told == CHOICES[adapter][choice]
    assert sent["tools"]


@pytest.mark.parametrize(
    ("adapters", "message", "why"),
    [
        (["openai-chat"], Message("user", (Media("document", url="https://e.org/a.pdf"),)),
         "no document by URL"),
        (["openai-chat"], Message("user", (Media("document", data=PDF, media_type="text/csv"),)),
         "document of type text/csv; it takes PDF"),
        (["anthropic", "openai", "openai-chat", "google"],
         Message("user", (Media("image", data=PNG, media_type="image/tiff"),)),
         "image of type image/tiff; it takes PNG"),
        (["google"], Message("user", (Media("image", data=PNG, media_type="image/gif"),)),
         "image of type image/gif"),
        (["google"], Message("user", (Media("image", data="no base64", media_type="image/png"),)),
         "image that is not base64"),
        (["anthropic", "google"],
         Message("user", (Media("document", data=PDF, media_type="application/msword"),)),
         "document of type application/msword"),
        (["anthropic", "openai", "openai-chat", "google"], Message("assistant", (PICTURE,)),
         "in a turn of assistant"),
        (["openai-chat", "google"],
         Message("tool", (PICTURE,), tool_call_id="call_1", name="add"), "in a turn of tool"),
    ],
)  # fmt: skip
def test_what_a_vendor_cannot_take_is_refused_before_it_is_sent(
    adapters: list[str], message: Message, why: str, server: Loopback, build: Build
) -> None:
    """Its 400 would end the task; so the next target gets it."""
    for adapter in adapters:
        with pytest.raises(errors.UnsupportedInput, match=why) as caught:
            build(adapter, server.url).complete(Asked([message], "m-1"))

        assert caught.value.verdict.next_target
        assert not caught.value.verdict.trips
        assert str(caught.value).startswith(f"my-{adapter}: ")
    assert server.asked == []


def test_a_tool_may_return_an_image_where_the_vendor_takes_it(
    server: Loopback, build: Build
) -> None:
    """Anthropic and Responses do."""
    talk = [
        TALK[0],
        *TALK[1:3],
        Message("tool", ("see", PICTURE), tool_call_id=FOREIGN, name="now"),
    ]
    for adapter in ("anthropic", "openai"):
        server.answer(answer_of(adapter))
        build(adapter, server.url).complete(Asked(talk, "m-1"))

    ours, theirs = (asked["body"] for asked in server.asked)
    assert ours["messages"][2]["content"][1]["content"][1]["type"] == "image"
    assert theirs["input"][4]["output"][1]["type"] == "input_image"


def test_a_text_document_goes_to_claude_as_text(server: Loopback, build: Build) -> None:
    """In base64 the API takes PDF alone."""
    server.answer(answer_of("anthropic"))
    note = Media("document", data=b64encode(b"a,b").decode(), media_type="text/csv")

    build("anthropic", server.url).complete(Asked([Message("user", (note,))], "m-1"))

    assert server.asked[0]["body"]["messages"][0]["content"] == [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a,b"}}
    ]


def plain(sent: Any) -> Any:
    """Even out how Google's SDK writes: snake case here and there, base64 for URLs."""
    if isinstance(sent, list):
        return [plain(one) for one in sent]
    if isinstance(sent, dict):
        return {_camel(name): plain(one) for name, one in sent.items()}
    return sent


def _camel(name: str) -> str:
    known = {"file_uri", "mime_type", "parameters_json_schema", "function_declarations"}
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest) if name in known else name

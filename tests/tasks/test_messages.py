"""Conversations: parts, media, tool calls and their results, and how they travel."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakwater.calls.call import CompletionCall
from breakwater.calls.messages import parse_prompt, prompt_as_json
from breakwater.content import Media, ToolCall
from breakwater.errors import InvalidPrompt

CANARY = "CANARY-PROMPT"
PNG = {"type": "image", "data": "iVBORw0K", "media_type": "image/png"}
ASKED: dict[str, Any] = {
    "role": "assistant", "content": None,
    "tool_calls": [{"id": "c1", "name": "weather", "arguments": {"city": "Oslo"}}],
}  # fmt: skip
TOLD = {"role": "tool", "tool_call_id": "c1", "content": "rain"}
HI = {"role": "user", "content": "hi"}


def showing(**part: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


def calling(**changed: Any) -> list[dict[str, Any]]:
    call = {**ASKED["tool_calls"][0], **changed}
    return [HI, {**ASKED, "tool_calls": [{k: v for k, v in call.items() if v is not ...}]}, TOLD]


def test_parts_keep_their_order() -> None:
    """What is said about an image stands before or behind it, as it was given."""
    url = "https://example.com/a.pdf"
    content = [
        {"type": "text", "text": "first"},
        PNG,
        {"type": "text", "text": ""},
        {"type": "document", "url": url, "name": "a.pdf"},
        {"type": "text", "text": "last"},
    ]

    (message,) = parse_prompt([{"role": "user", "content": content}])

    image, document = (
        Media("image", None, "iVBORw0K", "image/png"),
        Media("document", url, name="a.pdf"),
    )
    assert message.content == ("first", image, document, "last")
    assert message.text == "firstlast"


def test_a_prompt_may_be_media_alone() -> None:
    """A picture says something."""
    assert parse_prompt([{"role": "user", "content": [PNG]}])[0].text == ""


def test_a_prompt_may_end_in_a_tool_s_result() -> None:
    """The result carries the tool's name along, which some vendors want."""
    messages = parse_prompt([ASKED, TOLD])

    assert messages[0].tool_calls == (ToolCall("c1", "weather", {"city": "Oslo"}),)
    assert (messages[1].tool_call_id, messages[1].name) == ("c1", "weather")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image"}, "either url or data"),
        ({**PNG, "url": "https://a.b/c"}, "either url or data"),
        ({"type": "image", "url": f"file:///{CANARY}"}, "not http:// or https://"),
        ({"type": "image", "url": "https://"}, "not http:// or https://"),
        ({"type": "image", "url": "https://["}, "not http:// or https://"),
        ({"type": "image", "url": f"https://a.b/ {CANARY}"}, "not http:// or https://"),
        ({"type": "image", "url": "https://a.b/" + "x" * 8192}, "up to 8192 characters"),
        ({"type": "image", "url": 3}, "no valid url"),
        ({**PNG, "data": CANARY}, "not base64"),
        ({**PNG, "data": ""}, "not base64"),
        ({**PNG, "data": "iVBO\nRw0K"}, "not base64"),
        ({**PNG, "data": "iVBORw0"}, "not base64"),
        ({**PNG, "data": "äöüä"}, "not base64"),
        ({**PNG, "data": b"iVBORw0K"}, "not base64"),
        ({"type": "image", "data": "iVBORw0K"}, "image/png, image/jpeg, image/gif or image/webp"),
        ({**PNG, "media_type": "image/tiff"}, "image/png, image/jpeg, image/gif or image/webp"),
        ({**PNG, "type": "document"}, "application/pdf or text/"),
        ({**PNG, "type": "document", "media_type": "text/"}, "application/pdf or text/"),
        ({**PNG, "name": ""}, "1 to 255 printable characters"),
        ({**PNG, "name": f"{CANARY}\n"}, "1 to 255 printable characters"),
        ({**PNG, CANARY: 1}, "1 unknown key"),
        ({"type": "text", "text": 3}, "a text of type int"),
        ({"type": "text", "text": f"{CANARY}\ud800"}, "lone surrogate at character 13"),
        ({"type": CANARY}, "no valid type; parts are"),
        (CANARY, "is a str; parts are"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_shown_is_refused(part: Any, message: str) -> None:
    """The error names the part and what is allowed, and repeats nothing of it."""
    with pytest.raises(InvalidPrompt) as raised:
        parse_prompt([HI, {"role": "user", "content": [part]}])

    assert message in str(raised.value)
    assert "of message 1 of the prompt" in str(raised.value)
    assert CANARY not in repr(raised.value)


@pytest.mark.parametrize("media_type", ["application/pdf", "text/plain", "text/x-python"])
def test_documents_are_pdf_or_text(media_type: str) -> None:
    """All of them."""
    (message,) = parse_prompt(showing(type="document", data="aGk=", media_type=media_type))

    assert message.content == (Media("document", None, "aGk=", media_type),)


@pytest.mark.parametrize("role", ["assistant", "system", "tool"])
def test_only_users_show_media(role: str) -> None:
    """No vendor takes a picture in a system prompt, and few in a tool's result."""
    last = {"role": role, "content": [PNG]}
    prompt = [HI, ASKED, {**TOLD, **last}] if role == "tool" else [HI, last]

    with pytest.raises(InvalidPrompt, match="only user messages may"):
        parse_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([HI, TOLD], "message 1 of the prompt has no valid tool_call_id"),
        ([HI, ASKED, {**TOLD, "tool_call_id": CANARY}], "no valid tool_call_id"),
        ([HI, ASKED, {"role": "tool", "content": "x"}], "no valid tool_call_id"),
        ([HI, ASKED, {**TOLD, "tool_call_id": ["c1"]}], "no valid tool_call_id"),
        ([HI, ASKED, TOLD, TOLD], "message 3 of the prompt has no valid tool_call_id"),
        ([HI, ASKED, TOLD, HI, TOLD], "message 4 of the prompt has no valid tool_call_id"),
        ([HI, ASKED, HI], "message 2 of the prompt comes before 1 tool call(s)"),
        ([HI, ASKED], "the prompt ends before each tool call"),
        ([HI, {**HI, "tool_calls": []}], "unknown keys ['tool_calls']"),
        ([HI, {**HI, "role": "assistant", "tool_call_id": "c1"}], "unknown keys ['tool_call_id']"),
        ([HI, {"role": "assistant"}], "content of type NoneType"),
        ([HI, {**ASKED, "tool_calls": {}}], "tool_calls that are not a list"),
        ([HI, {**ASKED, "tool_calls": [CANARY]}], "tool call 0 of message 1 of the prompt"),
        (calling(id=3), "the id of tool call 0"),
        (calling(id=" "), "an empty id"),
        (calling(name=f"{CANARY}!"), "no valid name"),
        (calling(name=...), "no valid name"),
        (calling(arguments=f'{{"a": "{CANARY}"}}'), "it is a str; it must be an object"),
        (calling(arguments=...), "it is a NoneType; it must be an object"),
        (calling(arguments={"a": float("nan")}), "cannot be written as JSON"),
        (calling(arguments={"a": "\ud800"}), "lone surrogate"),
        (calling(arguments=json.loads('{"a":' * 70 + "1" + "}" * 70)), "nests deeper than 64"),
        (calling(signature=3), "the signature of tool call 0"),
        (calling(function="f"), "has the wrong shape"),
        ([HI, {**ASKED, "tool_calls": ASKED["tool_calls"] * 2}, TOLD], "two tool calls of the same id"),
    ],
)  # fmt: skip
def test_a_tool_s_turn_that_no_vendor_takes_is_refused(prompt: Any, message: str) -> None:
    """Each call needs its result right behind it, and each result its call."""
    with pytest.raises(InvalidPrompt) as raised:
        parse_prompt(prompt)

    assert message in str(raised.value)
    assert CANARY not in repr(raised.value)


def test_a_system_message_may_stand_between_a_call_and_its_result() -> None:
    """Adapters put it in front."""
    assert len(parse_prompt([HI, ASKED, {"role": "system", "content": "be brief"}, TOLD])) == 4


def test_every_message_tells_its_fault_at_once() -> None:
    """Up to ten, and how many more there are."""
    with pytest.raises(InvalidPrompt) as raised:
        parse_prompt([HI, *[{"role": "user", "content": 3}] * 12])

    assert len(raised.value.details["faults"]) == 10
    assert "message 1 of" in str(raised.value)
    assert str(raised.value).endswith("and 2 more")


def test_a_plain_prompt_travels_as_a_string() -> None:
    """As it always did."""
    assert prompt_as_json(parse_prompt("hi")) == "hi"


texts = st.text(st.characters(codec="utf-8"))
names = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
where = st.fixed_dictionaries(
    {}, optional={"name": st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)}
)
media = st.builds(
    lambda kind, given, more: {"type": kind, **given[kind == "image"], **more},
    st.sampled_from(["image", "document"]),
    st.one_of(
        st.binary(min_size=1).map(
            lambda data: [
                {"data": base64.b64encode(data).decode(), "media_type": each}
                for each in ("text/csv", "image/webp")
            ]
        ),
        st.just([{"url": "http://a.b/c?d=e"}] * 2),
    ),
    where,
)
text_parts = st.builds(lambda text: {"type": "text", "text": text}, texts)
said = st.one_of(texts, st.lists(text_parts))
user_turns = st.builds(
    lambda content: [{"role": "user", "content": content}],
    st.one_of(said, st.lists(text_parts | media)),
)
plain_turns = st.builds(
    lambda role, content: [{"role": role, "content": content}],
    st.sampled_from(["assistant", "system"]),
    said,
)
tool_calls = st.fixed_dictionaries(
    {
        "id": texts.filter(str.strip),
        "name": names,
        "arguments": st.dictionaries(texts, json_values, max_size=3),
    },
    optional={"signature": texts.filter(bool)},
)
tool_turns = st.builds(
    lambda calls, content, result: [
        {"role": "assistant", "content": content, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": result} for call in calls),
    ],
    st.lists(tool_calls, min_size=1, max_size=3, unique_by=lambda call: call["id"]),
    st.none() | said,
    said,
)
conversations = st.lists(st.one_of(user_turns, plain_turns, tool_turns), max_size=5).map(
    lambda turns: [{"role": "user", "content": "hi"}, *(m for turn in turns for m in turn)]
)


@settings(deadline=None)  # never a clock's say
@given(conversations)
def test_what_travels_is_what_was_said(prompt: list[dict[str, Any]]) -> None:
    """A worker that checks the prompt again reads the very same call."""
    call = CompletionCall.of("coder", prompt, {})

    arrived = json.loads(json.dumps(prompt_as_json(call.messages)))

    assert CompletionCall.of("coder", arrived, {}) == call

"""What a good answer brings, and which answers with status 200 are none."""

import json
from typing import Any

import pytest

from breakwater import errors
from breakwater.attempt import UNCOUNTED, Usage
from breakwater.errors import ProviderError
from simulator.client import Simulator
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import answer_of, request

LENGTH = {
    "anthropic": "max_tokens", "openai": "max_output_tokens",
    "openai-chat": "length", "google": "MAX_TOKENS",
}  # fmt: skip
FILTER = {
    "anthropic": "refusal", "openai": "content_filter",
    "openai-chat": "content_filter", "google": "SAFETY",
}  # fmt: skip


def test_an_answer_brings_text_model_usage_and_request_id(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """Input counts all input, output all that is billed, whatever the vendor counts as what."""
    counts = Usage(100, 50, 40, 0 if adapter == "google" else 20, 30)
    simulator.settings(label, answer="forty-two", usage=counts.as_dict())

    completion = build(adapter, simulator.url(label)).complete(request())

    assert completion.text == "forty-two"
    assert (completion.model, completion.finish_reason) == ("m-1", "stop")
    assert completion.usage == counts
    assert completion.request_id
    if adapter != "google":  # has no id in its headers, but one in the answer
        assert completion.request_id == simulator.hits(label)[0]["request_id"]


def test_an_answer_cut_at_the_length_is_a_success(
    adapter: str, server: Loopback, build: Build
) -> None:
    """It was asked for, and paid; the caller sees how it ended."""
    server.answer(answer_of(adapter, "half an ans", LENGTH[adapter]))

    completion = build(adapter, server.url).complete(request())

    assert (completion.text, completion.finish_reason) == ("half an ans", "length")
    assert completion.model == "m-1-dated"


def test_a_budget_spent_before_the_first_word_is_not_the_providers_fault(
    adapter: str, server: Loopback, build: Build
) -> None:
    """A reasoning model can use up all it may say; another target may not."""
    server.answer(answer_of(adapter, None, LENGTH[adapter]))

    with pytest.raises(errors.ContextWindowExceeded, match="spent before the first word") as caught:
        build(adapter, server.url).complete(request())

    assert not caught.value.verdict.trips


def test_a_filtered_answer_without_text_is_an_error(
    adapter: str, server: Loopback, build: Build
) -> None:
    """Another vendor may answer it."""
    server.answer(answer_of(adapter, None, FILTER[adapter]))

    with pytest.raises(errors.ContentFiltered, match="refuses to answer"):
        build(adapter, server.url).complete(request())


def test_a_filtered_answer_with_text_is_a_success_that_says_so(
    adapter: str, server: Loopback, build: Build
) -> None:
    """What was said before the filter struck was paid; the caller decides."""
    server.answer(answer_of(adapter, "so far", FILTER[adapter]))

    completion = build(adapter, server.url).complete(request())

    assert completion.text == "so far"
    assert completion.finish_reason == "refusal" if adapter == "anthropic" else "content_filter"


def test_a_blocked_prompt_is_content_filtered(server: Loopback, build: Build) -> None:
    """Gemini answers a prompt it blocks with no candidate at all."""
    server.answer({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}})

    with pytest.raises(errors.ContentFiltered):
        build("google", server.url).complete(request())


@pytest.mark.parametrize("adapter", ["openai", "openai-chat"])
def test_a_refusal_in_words_is_content_filtered(
    adapter: str, server: Loopback, build: Build
) -> None:
    """OpenAI puts a refusal beside the text and calls the answer complete."""
    answer = answer_of(adapter, None)
    if adapter == "openai":
        answer["output"][0]["content"] = [{"type": "refusal", "refusal": "I cannot"}]
    else:
        answer["choices"][0]["message"]["refusal"] = "I cannot"
    server.answer(answer)

    with pytest.raises(errors.ContentFiltered):
        build(adapter, server.url).complete(request())


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_an_empty_answer_is_garbled(
    text: str | None, adapter: str, server: Loopback, build: Build
) -> None:
    """Nothing, or nothing but space, is no answer, however well it ended."""
    server.answer(answer_of(adapter, text))

    with pytest.raises(errors.GarbledAnswer, match="the answer is empty"):
        build(adapter, server.url).complete(request())


@pytest.mark.parametrize(
    ("adapter", "path"),
    [
        ("anthropic", ("stop_reason",)),
        ("openai", ("status",)),
        ("openai-chat", ("choices", 0, "finish_reason")),
        ("google", ("candidates", 0, "finishReason")),
    ],
)
def test_an_answer_that_does_not_say_how_it_ended_is_truncated(
    adapter: str, path: tuple[Any, ...], server: Loopback, build: Build
) -> None:
    """A finish reason is the last thing a vendor writes."""
    answer: Any = answer_of(adapter)
    inner = answer
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = None
    server.answer(answer)

    with pytest.raises(errors.TruncatedAnswer, match="no finish reason"):
        build(adapter, server.url).complete(request())


@pytest.mark.parametrize(
    "body",
    [
        b"null", b"[]", b"7", b'"text"', b"{}", b'{"content": 5, "output": 5, "choices": 5}',
        b'{"content": [7], "output": [7], "choices": [7], "candidates": [7]}',
        b'{"choices": [{"message": null, "finish_reason": "stop"}], "candidates": "many"}',
        b'{"content": [{"type": "text", "text": 5}], "stop_reason": "end_turn"}',
        b"\xff\xfe\x00", b"", b"<html>", b'{"content": [{"type"',
    ],
)  # fmt: skip
def test_a_body_of_any_other_shape_is_an_error_with_a_name(
    body: bytes, adapter: str, server: Loopback, build: Build
) -> None:
    """The SDKs turn most of these into objects full of None."""
    server.answer(body)

    with pytest.raises((errors.GarbledAnswer, errors.TruncatedAnswer)):
        build(adapter, server.url).complete(request())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("server_error", errors.ServerError),
        ("rate_limit_exceeded", errors.RateLimited),
        ("invalid_prompt", errors.ContentFiltered),
        ("bio_policy", errors.ContentFiltered),
        ("something_new", errors.UnknownError),
    ],
)
def test_a_failed_response_is_read_by_its_code(
    code: str, expected: type[ProviderError], server: Loopback, build: Build
) -> None:
    """OpenAI reports a failure of the model inside an answer with status 200."""
    failed = answer_of("openai", None, "failed")
    server.answer({**failed, "error": {"code": code, "message": "no"}})

    with pytest.raises(ProviderError) as caught:
        build("openai", server.url).complete(request())

    assert type(caught.value) is expected


def test_an_error_in_a_chat_answer_is_read_by_its_status(server: Loopback, build: Build) -> None:
    """OpenRouter answers 200 and puts the upstream's status into the error."""
    server.answer({"error": {"code": 429, "message": "slow down"}})

    with pytest.raises(errors.RateLimited):
        build("openai-chat", server.url).complete(request())


@pytest.mark.parametrize(
    "reason", ["MALFORMED_RESPONSE", "OTHER", "UNEXPECTED_TOOL_CALL", "MALFORMED_FUNCTION_CALL"]
)
def test_a_model_that_failed_by_its_own_word_is_garbled(
    reason: str, server: Loopback, build: Build
) -> None:
    """Even with text: Gemini itself says that it is not the answer."""
    server.answer(answer_of("google", "half", reason))

    with pytest.raises(errors.GarbledAnswer):
        build("google", server.url).complete(request())


def test_thoughts_are_not_part_of_the_text(server: Loopback, build: Build) -> None:
    """Gemini marks its thoughts among the parts."""
    answer = answer_of("google", "said")
    answer["candidates"][0]["content"]["parts"].insert(0, {"text": "hm", "thought": True})
    server.answer(answer)

    assert build("google", server.url).complete(request()).text == "said"


def test_a_server_that_does_not_count_is_no_error(server: Loopback, build: Build) -> None:
    """Some compatible servers leave usage and request id out."""
    answer = answer_of("openai-chat")
    del answer["usage"]
    server.answer(answer)

    completion = build("openai-chat", server.url).complete(request())

    assert completion.usage == UNCOUNTED
    assert completion.request_id == "chatcmpl-1"


def called(adapter: str, arguments: str = '{"a": 1}', finish: str = "") -> dict[str, Any]:
    """Return an answer that calls a tool and says nothing."""
    answer = answer_of(adapter, None, finish)
    if adapter == "anthropic":
        answer["content"] = [
            {"type": "tool_use", "id": "c_1", "name": "add", "input": json.loads(arguments)}
        ]
    elif adapter == "openai":
        answer["output"] = [
            {"type": "function_call", "id": "fc", "call_id": "c_1", "name": "add",
             "arguments": arguments},
        ]  # fmt: skip
    elif adapter == "openai-chat":
        answer["choices"][0]["message"]["tool_calls"] = [
            {"id": "c_1", "type": "function", "function": {"name": "add", "arguments": arguments}}
        ]
    else:
        answer["candidates"][0]["content"]["parts"] = [
            {"functionCall": {"name": "add", "args": json.loads(arguments)},
             "thoughtSignature": "c2lnbmVk"},
        ]  # fmt: skip
    return answer


def test_an_answer_of_calls_alone_is_a_success(
    adapter: str, server: Loopback, build: Build
) -> None:
    """Whatever the vendor calls its end; Gemini gives no id, and signs its calls."""
    server.answer(called(adapter))

    completion = build(adapter, server.url).complete(request())

    assert (completion.text, completion.finish_reason) == ("", "tool_calls")
    (call,) = completion.tool_calls
    assert (call.name, call.arguments) == ("add", {"a": 1})
    assert call.id == "c_1" if adapter != "google" else call.id.startswith("call_")
    assert call.signature == ("c2lnbmVk" if adapter == "google" else None)


@pytest.mark.parametrize("adapter", ["openai", "openai-chat"])
@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]", "null", "add 1"])
def test_arguments_that_are_no_json_object_are_garbled(
    arguments: str, adapter: str, server: Loopback, build: Build
) -> None:
    """What calls the tool must not have to guess; and what was paid is counted."""
    server.answer(called(adapter, arguments))

    with pytest.raises(errors.GarbledAnswer, match="not a JSON object") as caught:
        build(adapter, server.url).complete(request())

    assert caught.value.usage == {**Usage(3, 5).as_dict()}


@pytest.mark.parametrize("adapter", ["openai", "openai-chat"])
def test_a_tool_without_parameters_may_be_called_with_nothing(
    adapter: str, server: Loopback, build: Build
) -> None:
    """Some compatible servers write no arguments at all."""
    server.answer(called(adapter, ""))

    assert build(adapter, server.url).complete(request()).tool_calls[0].arguments == {}


@pytest.mark.parametrize("adapter", ["openai", "openai-chat"])
def test_a_call_cut_off_by_the_length_is_none(adapter: str, server: Loopback, build: Build) -> None:
    """Half a call must not be made; it is the budget that was too small, not the provider."""
    server.answer(called(adapter, '{"a": 1', LENGTH[adapter]))

    with pytest.raises(errors.ContextWindowExceeded):
        build(adapter, server.url).complete(request())


CALL = {"name": "add", "arguments": '{"a": 1}'}
ODD_MESSAGES: dict[str, dict[str, Any]] = {
    "parts": {"content": [{"type": "text", "text": "h"}, "i", {"type": "text", "text": ""}]},
    "thoughts among parts": {
        "content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "hi"}]
    },
    "reasoning beside it": {"content": "hi", "reasoning_content": "hm", "reasoning": "hm"},
    "calls of null": {"content": "hi", "tool_calls": None, "function_call": None},
    "no calls": {"content": "hi", "tool_calls": []},
    "a custom call, never offered": {
        "content": "hi",
        "tool_calls": [{"type": "custom", "id": "c"}],
    },
    "arguments as an object": {
        "tool_calls": [{"id": "c", "function": {"name": "add", "arguments": {"a": 1}}}]
    },
    "a call without id and type": {"content": "", "tool_calls": [{"function": CALL}]},
    "a call's id is null": {"content": None, "tool_calls": [{"id": None, "function": CALL}]},
    "a call that is flat": {"content": None, "tool_calls": [{"id": "c", **CALL}]},
    "one call, no list": {"content": None, "tool_calls": {"id": "c", "function": CALL}},
    "the legacy form": {"content": None, "function_call": CALL},
}


@pytest.mark.parametrize("odd", ODD_MESSAGES)
def test_a_message_is_read_as_servers_write_it(odd: str, server: Loopback, build: Build) -> None:
    """Compatible servers and gateways; the same in a stream is in `data/streams`."""
    answer = answer_of("openai-chat")
    answer["choices"][0]["message"] = ODD_MESSAGES[odd]
    server.answer(answer)

    completion = build("openai-chat", server.url).complete(request())

    if completion.tool_calls:
        assert [(c.name, c.arguments) for c in completion.tool_calls] == [("add", {"a": 1})]
        assert completion.tool_calls[0].id
    else:
        assert completion.text == "hi"


@pytest.mark.parametrize(
    ("arguments", "read"), [(None, {}), ("", {}), ({}, {}), ({"a": 1}, {"a": 1}), ("{}", {})]
)
@pytest.mark.parametrize("adapter", ["openai", "openai-chat"])
def test_arguments_of_any_form_are_read(
    arguments: object, read: object, adapter: str, server: Loopback, build: Build
) -> None:
    """As JSON text, as an object, or not at all."""
    answer = called(adapter)
    if adapter == "openai":
        answer["output"][0]["arguments"] = arguments
    else:
        answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = arguments
    server.answer(answer)

    assert build(adapter, server.url).complete(request()).tool_calls[0].arguments == read


@pytest.mark.parametrize(
    ("adapter", "body", "expected"),
    [
        (
            "openai-chat",
            {
                "error": "This model's maximum prompt length is 8192 but the request has 9000 tokens."
            },
            errors.ContextWindowExceeded,
        ),
        ("openai-chat", {"object": "error", "code": 429, "message": "x"}, errors.RateLimited),
        (
            "openai-chat",
            {"choices": [{"message": {"content": "half"}, "error": {"code": 503}}]},
            errors.Overloaded,
        ),
        ("anthropic", {"type": "error", "error": {"type": "overloaded_error"}}, errors.Overloaded),
        ("google", {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, errors.RateLimited),
    ],
)
def test_an_error_with_status_200_is_read_by_its_words(
    adapter: str, body: dict[str, Any], expected: type[ProviderError], server: Loopback,
    build: Build,
) -> None:  # fmt: skip
    """In any of its shapes; the text beside it is no answer."""
    server.answer(body)

    with pytest.raises(ProviderError) as caught:
        build(adapter, server.url).complete(request())

    assert type(caught.value) is expected

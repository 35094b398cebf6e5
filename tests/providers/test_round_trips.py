"""What a result gives can be handed back, through every adapter."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakwater import errors
from breakwater.attempt import Attempt
from breakwater.calls.call import CompletionCall, bind_arguments
from breakwater.content import Message, ToolCall
from breakwater.langchain.answers import message_of
from breakwater.langchain.messages import prompt_of
from breakwater.result import Result, read_result, write_result
from tasks.answering.walk import ChainAnswer
from tasks.config import Target
from tasks.providers.adapter import Adapter, RawAnswer, prepared
from tasks.providers.base import Completion, Request
from tasks.providers.round_trip import (
    portable_json,
    valid_tool_name,
    well_formed,
    with_unique_call_ids,
)
from tasks.providers.streams.relay import StreamRelay
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendor_rules import faults
from tests.support.vendors import answer_of, provider_for, request

NAMES = ("anthropic", "openai", "openai-chat", "google")
TOOLS = [{"name": "w", "parameters": {"type": "object", "properties": {"x": {}}}}]
ADAPTERS: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def adapters() -> Iterator[None]:
    """Built once; nothing is sent."""
    for name in NAMES:
        ADAPTERS[name] = provider_for(name, "http://127.0.0.1:9")
    yield
    for each in ADAPTERS.values():
        each.close()
    ADAPTERS.clear()


Calls = list[tuple[Any, Any, Any]]


def said(adapter: str, text: str, calls: Calls) -> dict[str, Any]:
    """Write a vendor's answer: a text, and calls by id, name and arguments."""
    answer = answer_of(adapter, text)
    if adapter == "anthropic":
        answer["content"] += [
            {"type": "tool_use", "id": i, "name": n, "input": a} for i, n, a in calls
        ]
        answer["stop_reason"] = "tool_use" if calls else "end_turn"
    elif adapter == "openai":
        answer["output"] += [
            {"type": "function_call", "call_id": i, "name": n, "arguments": json.dumps(a)}
            for i, n, a in calls
        ]
    elif adapter == "openai-chat":
        answer["choices"][0]["message"]["tool_calls"] = [
            {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
            for i, n, a in calls
        ]
    else:
        answer["candidates"][0]["content"]["parts"] += [
            {"functionCall": {"id": i, "name": n, "args": a}, "thoughtSignature": "c2ln"}
            for i, n, a in calls
        ]
    return answer


def result_of(completion: Completion) -> Result:
    """Return a result as it arrives at its caller."""
    target = Target("claude", completion.model)
    attempt = Attempt(target.provider, target.model, "succeeded")
    answer = ChainAnswer(completion, target, [attempt], admits_all=True).answer("t")
    result = write_result(answer, role="coder", attempts=[attempt], queued_ms=0)
    return read_result(json.loads(json.dumps(result, allow_nan=False)))


def handed_back(result: Result, outputs: Callable[[], str]) -> list[dict[str, Any]]:
    """Return a result as the documentation has it handed back, with what the tools said."""
    turn = {"role": "assistant", "content": result["text"], "tool_calls": result["tool_calls"]}
    if not result["tool_calls"]:
        del turn["tool_calls"]
    return [
        turn,
        *(
            {"role": "tool", "tool_call_id": call["id"], "content": outputs()}
            for call in result["tool_calls"]
        ),
    ]


def check(prompt: list[dict[str, Any]], *, tools: bool = True) -> None:
    """Hand a prompt in as a caller does, and look at what each vendor would be sent."""
    options = {"tools": TOOLS} if tools else {}
    role, given_prompt, rest = bind_arguments(("coder", prompt), options)
    call = CompletionCall.of(role, given_prompt, rest)
    for name, provider in ADAPTERS.items():
        asked = Request(call.messages, "m-1", tools=call.tools, timeout_s=30)
        assert faults(name, provider._body(prepared(asked))) == [], name


TEXTS = st.one_of(
    st.sampled_from(["", " ", "\n\n", "ok", "\ud83d", "a\ude00b", "😀", "\ud83d\ude00", "\x00"]),
    st.text(st.characters(), max_size=5),
)
IDS = st.one_of(
    st.none(),
    st.sampled_from(
        ["", " ", "c", "call_0", "call_1", "c\ud83d", "a b/c", "é", "x" * 500, "toolu_1"]
    ),
    TEXTS,
)
TOOL_NAMES = st.sampled_from(
    [
        "w",
        "w",
        "functions.w",
        "my tool",
        "w" * 200,
        "1w",
        "-w",
        "wé",
        "w:0",
        "a/b",
        "\ud83dw",
        " w ",
        "工具",
    ]
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=4,
)
CALLS = st.lists(st.tuples(IDS, TOOL_NAMES, st.dictionaries(TEXTS, VALUES, max_size=2)), max_size=3)
ANSWERS = st.tuples(st.sampled_from(NAMES), TEXTS, CALLS)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=3), st.data())
def test_whatever_a_result_gives_can_be_handed_back(answers: list[Any], data: Any) -> None:
    """To `delay`, to every vendor and through LangChain, turn upon turn."""
    prompt: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
    for name, text, calls in answers:
        provider: Adapter = ADAPTERS[name]
        try:
            completion = provider._parse(RawAnswer(said(name, text, calls)), request())
        except errors.GarbledAnswer:
            continue
        result = result_of(completion)
        turns = handed_back(result, lambda: data.draw(st.sampled_from(["ok", "", " \n"])))
        chained = prompt_of([message_of(result)])

        assert chained[0]["content"] == result["text"]
        assert chained[0].get("tool_calls", []) == result["tool_calls"]
        prompt += turns
        check([*prompt, {"role": "user", "content": "and now?"}])
        if result["tool_calls"]:
            check(prompt)
            check(prompt, tools=False)
            prompt.append({"role": "user", "content": "go on"})


ODD: dict[str, Calls] = {
    "the same id twice": [("c", "w", {"x": 1}), ("c", "w", {"x": 2})],
    "the same id thrice": [("c", "w", {}), ("c", "w", {}), ("c", "w", {})],
    "no id": [(None, "w", {}), ("", "w", {}), (" ", "w", {})],
    "an id that no vendor takes": [("call/0 é", "w", {}), ("x" * 300, "w", {})],
    "half a pair in an id": [("\ud83d", "w", {}), ("\ude00", "w", {})],
    "a name with a dot": [("c", "functions.w", {})],
    "a name with spaces": [("c", " my tool ", {})],
    "a name that is too long": [("c", "w" * 300, {})],
    "a name of other letters": [("c", "工具", {})],
    "a name with a number in front and a dot": [("c", "1.w", {})],
    "NaN": [("c", "w", {"x": float("nan"), "y": [float("inf"), -float("inf"), 1.5]})],
    "half a pair": [("c", "w", {"x": "\ud83d", "y\ude00": ["a\ud83db"]})],
    "a whole pair in halves": [("c", "w", {"x": "\ud83d\ude00"})],
}  # fmt: skip


@pytest.mark.parametrize("calls", ODD.values(), ids=ODD.keys())
def test_odd_calls_of_models_are_repaired(
    calls: Calls, adapter: str, server: Loopback, build: Build
) -> None:
    """What models really make up; each can be answered, and goes to every vendor."""
    server.answer(said(adapter, "\n\n", calls))

    result = result_of(build(adapter, server.url).complete(request()))

    assert len(result["tool_calls"]) == len(calls)
    assert len({call["id"] for call in result["tool_calls"]}) == len(calls)
    back = handed_back(result, lambda: "no such tool")
    check([{"role": "user", "content": "hi"}, *back])
    check([{"role": "user", "content": "hi"}, *back, *back])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("w", "w"), ("1w", "1w"), ("-w", "-w"), ("functions.w", "functions_w"), ("my tool", "my_tool"),
        ("w" * 65, "w" * 64), ("工具", "___"), ("1.w", "_1_w"), ("w\ud83d", "w_"), ("a/b:0", "a_b_0"),
    ],
)  # fmt: skip
def test_a_name_is_repaired_character_by_character(given: str, expected: str) -> None:
    """One that every vendor takes stays as it is."""
    assert valid_tool_name(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"x": float("nan"), "y": [float("inf"), -float("inf"), 1.5]}, {"x": None, "y": [None, None, 1.5]}),
        ({"x": "\ud83d", "y\ude00": "a"}, {"x": "\ufffd", "y\ufffd": "a"}),
        ({"x": "\ud83d\ude00"}, {"x": "😀"}),
        ({"x": {"y": [{"z": "\ud83d"}]}}, {"x": {"y": [{"z": "\ufffd"}]}}),
        ({"x": [1, True, None, 10**30, "é"]}, {"x": [1, True, None, 10**30, "é"]}),
    ],
)  # fmt: skip
def test_arguments_are_repaired_as_other_languages_write_them(given: Any, expected: Any) -> None:
    """JSON has neither NaN nor half a character."""
    assert portable_json(given) == expected


def test_half_characters_of_a_text_are_repaired(
    adapter: str, server: Loopback, build: Build
) -> None:
    """A text with one could not be handed back."""
    server.answer(said(adapter, "a\ud83db\ud83d\ude00", []))

    assert build(adapter, server.url).complete(request()).text == "a\ufffdb😀"
    assert well_formed("plain") == "plain"


@pytest.mark.parametrize("levels", [64, 65, 500, 100_000])
def test_arguments_that_nest_deeper_than_a_prompt_may_are_garbled(
    levels: int, server: Loopback, build: Build
) -> None:
    """They could not be handed back; and no depth of them is an error of another kind."""
    nested = '{"a":' * levels + "1" + "}" * levels
    answer = said("openai-chat", "", [("c", "w", {})])
    call = answer["choices"][0]["message"]["tool_calls"][0]
    call["function"]["arguments"] = nested
    server.answer(answer)
    provider = build("openai-chat", server.url)

    if levels <= 64:
        back = handed_back(result_of(provider.complete(request())), lambda: "ok")
        check([{"role": "user", "content": "hi"}, *back])
        return
    with pytest.raises(errors.GarbledAnswer, match="not a JSON object"):
        provider.complete(request())


@pytest.mark.parametrize("where", ["body", "arguments"])
def test_an_answer_that_nests_without_an_end_is_garbled(
    where: str, adapter: str, server: Loopback, build: Build
) -> None:
    """Whatever Python's parser makes of it."""
    deep = "[" * 200_000
    body = json.dumps(said(adapter, "x", [("c", "w", "<deep>")]))
    server.answer((deep if where == "body" else body.replace('"<deep>"', deep)).encode())

    with pytest.raises(errors.ProviderError) as raised:
        build(adapter, server.url).complete(request())

    assert type(raised.value) in {errors.GarbledAnswer, errors.TruncatedAnswer}


def test_ids_are_unique_over_a_conversation() -> None:
    """The first keeps its own, later ones get the same each time: prompts' caches live by it."""
    turn = [
        Message("assistant", "", (ToolCall("call_0", "w", {}), ToolCall("é", "w", {}))),
        Message("tool", "a", tool_call_id="é", name="w"),
        Message("tool", "b", tool_call_id="call_0", name="w"),
    ]
    talk = [Message("user", "hi"), *turn * 3]

    sent = with_unique_call_ids(talk)

    ids = [call.id for message in sent for call in message.tool_calls]
    assert ids[0] == "call_0"
    assert len(set(ids)) == 6
    assert [m.tool_call_id for m in sent if m.role == "tool"] == [
        ids[1], ids[0], ids[3], ids[2], ids[5], ids[4],
    ]  # fmt: skip
    assert with_unique_call_ids(talk) == sent
    assert with_unique_call_ids([*talk, *turn])[: len(sent)] == sent
    assert with_unique_call_ids(talk[:1]) == talk[:1]


@pytest.mark.parametrize(
    "turns",
    [
        [("user", "hi"), ("assistant", ""), ("user", "and?")],
        [("user", "hi"), ("assistant", " \n"), ("user", "and?")],
        [("user", " "), ("user", "hi")],
        [("user", "hi"), ("user", "")],
        [("user", "hi"), ("assistant", "so: \n")],
        [("system", " "), ("user", "hi")],
        [("user", "hi"), ("system", "be brief"), ("assistant", "yes"), ("user", "and?")],
    ],
)
def test_turns_that_say_nothing_are_left_out_where_they_are_refused(turns: Any) -> None:
    """Other vendors take them."""
    check([{"role": role, "content": content} for role, content in turns], tools=False)


def test_a_conversation_that_begins_with_the_assistant_goes_on_to_the_next_target() -> None:
    """Anthropic would answer 400; the others take it."""
    talk = [Message("assistant", "How can I help?"), Message("user", "hi")]

    with pytest.raises(errors.UnsupportedInput, match="begins with the assistant"):
        ADAPTERS["anthropic"]._body(Request(talk, "m-1"))
    for name in ("openai", "openai-chat", "google"):
        assert faults(name, ADAPTERS[name]._body(Request(talk, "m-1"))) == []


@pytest.mark.parametrize("signature", ["not base64!", "é", "=", "AAA"])
def test_a_signature_that_is_none_is_left_out(signature: str) -> None:
    """Another vendor's, or made up: Gemini gets its own stand-in."""
    talk = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "c", "name": "w", "arguments": {}, "signature": signature}]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
    ]  # fmt: skip
    check(talk)


def test_a_stream_has_the_ids_and_names_of_its_result() -> None:
    """Whoever reads along answers the same call."""
    heard: list[Any] = []
    relay = StreamRelay(heard.append, request())
    calls = [("c", "functions.w", {}), ("c", "w", {}), ("d", "my tool", {})]
    for index, (id_, name, _) in enumerate(calls):
        relay.send_tool_call(index, id_, name)
        relay.send_tool_call(index, arguments="{}")

    answer = RawAnswer(said("openai-chat", "", calls))
    completion = ADAPTERS["openai-chat"]._parse(answer, request())

    opened = [(each.id, each.name) for each in heard if each.id]
    assert opened == [(call.id, call.name) for call in completion.tool_calls]
    assert len(heard) == 6

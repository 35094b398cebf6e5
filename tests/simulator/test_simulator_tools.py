"""Calls of tools through the official SDKs: when, which, in what pieces, and what must follow."""

from dataclasses import replace

import pytest

from simulator.client import Simulator
from tests.support.vendor_sdks import status_of
from tests.support.vendor_talks import Ask, Call, Talk, called, returned, user

PLACE = {
    "type": "object",
    "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["place", "days"],
}
TOOLS = {"look_up": PLACE, "forecast": PLACE}
STREAMS = pytest.mark.parametrize("stream", [False, True])


@STREAMS
@pytest.mark.parametrize(
    ("choice", "text", "name"),
    [
        ("required", "hello", "look_up"),
        ("forecast", "hello", "forecast"),
        ("auto", "give me the forecast", "forecast"),
        (None, "use the tool", "look_up"),
        (None, "hello", None),
        ("none", "use the tool", None),
    ],
)
def test_the_choice_or_the_users_words_say_which_tool_is_called(
    talk: Talk, stream: bool, choice: str | None, text: str, name: str | None
) -> None:
    """A tool named in the text is called, or the first for `the tool`; `none` never calls."""
    said = talk(Ask((user(text),), TOOLS, choice, stream=stream))

    assert [call.name for call in said.calls] == ([name] if name else [])
    assert bool(said.text) is (name is None)


@STREAMS
def test_arguments_are_an_instance_with_the_users_number_and_words(
    talk: Talk, wire: str, stream: bool
) -> None:
    """The first number and the first quoted words of the text; in a stream in three pieces."""
    said = talk(Ask((user("use the tool for 'Ulm' and 3 days"),), TOOLS, stream=stream))

    assert said.calls[0].arguments == {"place": "Ulm", "days": 3}
    if stream and wire != "google":  # which sends a call in one piece
        assert said.pieces >= 3


@STREAMS
def test_calls_can_be_ordered_several_at_once_with_text_beside_them(
    sim: Simulator, talk: Talk, wire: str, stream: bool
) -> None:
    """`tool_calls` sets them, `answer` the text; ids differ, Google signs the first alone."""
    ordered = [
        {"name": "look_up", "arguments": {"place": "Ulm", "days": 1}},
        {"name": "forecast", "arguments": {"place": "Bonn", "days": 2}},
    ]
    sim.settings("it", tool_calls=ordered, answer="one moment")

    said = talk(Ask((user("hello"),), TOOLS, stream=stream))

    assert [{"name": c.name, "arguments": c.arguments} for c in said.calls] == ordered
    assert said.text == "one moment"
    if wire == "google":
        assert [call.signature is not None for call in said.calls] == [True, False]
    else:
        assert len({call.id for call in said.calls}) == 2


@STREAMS
def test_after_the_results_comes_text(sim: Simulator, talk: Talk, stream: bool) -> None:
    """The loop of an agent ends, and the log tells how it went."""
    question = user("use look_up and the forecast")
    sim.settings("it", tool_calls=[{"name": "look_up"}, {"name": "forecast"}])
    first = talk(Ask((question,), TOOLS, stream=stream))

    turns = (question, called(*first.calls), returned(*first.calls))
    last = talk(Ask(turns, TOOLS, stream=stream))

    assert last.text.startswith("[it] answer")
    assert last.calls == ()
    asked = sim.hits("it")[1]["asked"]
    assert (asked["turns"], asked["tool_results"]) == (3, 2)
    assert asked["tools"] == ["look_up", "forecast"]


def test_a_result_needs_its_call_and_a_call_its_result(talk: Talk, wire: str) -> None:
    """All vendors refuse a conversation that does not add up, each in its words."""
    call = Call("toolu_1", "look_up", {"place": "Ulm", "days": 1}, b"signed")
    strange = replace(call, id="toolu_2", name="forecast")

    for turns in (
        (user("x"), returned(call)),
        (user("x"), called(call), user("and?")),
        (user("x"), called(call), returned(strange)),
        (user("x"), called(call, strange), returned(call)),
    ):
        with pytest.raises(Exception, match=r"(?i)tool_use|tool|function") as refused:
            talk(Ask(turns, TOOLS))

        assert status_of(refused.value) == 400


@pytest.mark.parametrize("wire", ["google"], indirect=True)
def test_google_wants_its_signature_back(talk: Talk) -> None:
    """The first call of a turn needs it; the documented dummy passes."""
    call = Call("", "look_up", {"place": "Ulm", "days": 1})

    with pytest.raises(Exception, match="missing a thought_signature"):
        talk(Ask((user("x"), called(call), returned(call)), TOOLS))
    dummy = replace(call, signature=b"skip_thought_signature_validator")
    said = talk(Ask((user("x"), called(dummy, call), returned(dummy, call)), TOOLS))

    assert said.text.startswith("[it] answer")


@pytest.mark.parametrize("choice", ["required", "another"])
def test_a_choice_among_tools_that_are_not_there_is_refused(
    talk: Talk, wire: str, choice: str
) -> None:
    """No tools at all, or none of that name."""
    with pytest.raises(Exception, match=r"(?i)tool_choice") as refused:
        talk(Ask((user("x"),), TOOLS if choice == "another" else {}, choice))

    assert status_of(refused.value) == 400


def test_tools_without_the_shape_of_an_object_are_refused(talk: Talk, wire: str) -> None:
    """A tool's arguments are an object at every vendor."""
    with pytest.raises(Exception, match=r"look_up|input_schema") as refused:
        talk(Ask((user("x"),), {"look_up": {"type": "array"}}))

    assert status_of(refused.value) == 400

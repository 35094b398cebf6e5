"""The door: what a caller may hand to `complete`, and what it is told otherwise."""

import json
from base64 import b64encode

import pytest

from breakwater.calls.call import MAX_BYTES, CompletionCall, bind_arguments
from breakwater.errors import BadTask, InvalidOption, InvalidPrompt, UnknownRole
from tasks.delivery.delivery_store import MAX_MESSAGE_BYTES

RESULT = {"task_id": "1", "role": "planner", "text": "a plan", "attempts": []}


def test_a_string_is_one_user_message() -> None:
    """A prompt may be a plain string."""
    call = CompletionCall.of("coder", "hi", {})

    assert [(m.role, m.content) for m in call.messages] == [("user", "hi")]


def test_text_parts_are_joined() -> None:
    """Content may be a list of text parts."""
    prompt = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]

    call = CompletionCall.of("coder", prompt, {})

    assert call.messages[0].content == "ab"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        (" \n\t", "the prompt is empty"),
        ([], "the prompt is empty"),
        ([{"role": "system", "content": "be brief"}], "at least one user message"),
        ([{"role": "user", "content": []}], "at least one user message"),
        (None, "the prompt is a NoneType"),
        (b"bytes", "the prompt is a bytes"),
        ({"text": "x"}, "the prompt is a dict"),
        (["hi"], "message 0 of the prompt is a str"),
        ([{"role": "robot", "content": "x"}], "one of user, assistant, system, tool"),
        ([{"role": [], "content": "x"}], "one of user, assistant, system, tool"),
        ([{"role": "user", "content": 3}], "content of type int"),
        ([{"role": "user", "content": "x", "name": "y"}], "unknown keys ['name']"),
        ([{"role": "user", "content": [{"type": "sound"}]}], "part 0 of message 0 of the prompt"),
        ("\ud800", "cannot be written as UTF-8"),
    ],
)
def test_a_prompt_that_cannot_be_asked_is_refused(prompt: object, message: str) -> None:
    """Empty, of the wrong shape, or not JSON: the error says which."""
    with pytest.raises(InvalidPrompt, match=message.replace("[", r"\[").replace("]", r"\]")):
        CompletionCall.of("coder", prompt, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sytem": "x"}, "unknown option 'sytem' (did you mean 'system'?)"),
        ({"deadline_s": 0}, "deadline_s is 0; it must be more than 0 seconds"),
        ({"deadline_s": float("nan")}, "deadline_s is nan"),
        ({"deadline_s": True}, "deadline_s is a bool"),
        ({"deadline_s": "soon"}, "deadline_s is a str"),
        ({"system": 3}, "system is a int"),
        ({"metadata": []}, "metadata is a list"),
        ({"metadata": {"a": object()}}, "metadata cannot be written as JSON"),
        ({"metadata": {"a": float("inf")}}, "metadata cannot be written as JSON"),
        ({"params": "hot"}, "params is a str"),
        ({"params": {"temprature": 1}}, "temperature"),
        ({"stream": 1}, "stream is a int; it must be true or false"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    """An option that does not exist, or whose value does not fit, names what is allowed."""
    with pytest.raises(InvalidOption) as raised:
        CompletionCall.of("coder", "hi", options)

    assert message in str(raised.value)


def test_all_faults_of_the_options_are_told_at_once() -> None:
    """Nobody mends one fault only to be told of the next."""
    with pytest.raises(InvalidOption) as raised:
        CompletionCall.of("coder", "hi", {"sytem": "x", "deadline_s": -1, "metadata": 3})

    assert len(raised.value.details["faults"]) == 3


@pytest.mark.parametrize("role", ["", "a b", "x\n", "ä", 3, None, ["coder"], "x" * 65, "-x"])
def test_what_cannot_be_a_role_is_refused(role: object) -> None:
    """A role is a short name; anything else cannot be in a roles file."""
    with pytest.raises(UnknownRole, match="cannot be a role"):
        CompletionCall.of(role, "hi", {})


def test_a_prompt_in_the_role_s_place_is_not_repeated() -> None:
    """Who confuses the two finds the shape in the error, and no prompt in a log."""
    with pytest.raises(UnknownRole, match="a str of 27 characters cannot be a role") as raised:
        CompletionCall.of("CANARY: what is said here\n\n", "coder", {})

    assert "CANARY" not in str(raised.value)


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("x" * (MAX_BYTES + 1), {}),
        ("\u4e16" * (MAX_BYTES // 6 + 1), {}),  # six bytes each, as it travels
        ([{"role": "user", "content": "x" * 1000}] * (MAX_BYTES // 1000 + 1), {}),
        ("x", {"system": "x" * MAX_BYTES}),
        ("x", {"metadata": {"x": "x" * MAX_BYTES}}),
        ("x", {"tools": [{"name": "f", "description": "x" * MAX_BYTES}]}),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "data": "AAAA" * (MAX_BYTES // 4),
                            "media_type": "image/png",
                        }
                    ],
                }
            ],
            {},
        ),
    ],
)
def test_a_prompt_that_is_too_large_is_refused(prompt: object, options: dict[str, object]) -> None:
    """At the producer, with both figures."""
    with pytest.raises(InvalidPrompt, match=rf"have \d+ bytes as JSON; at most {MAX_BYTES} are"):
        CompletionCall.of("coder", prompt, options)


def test_the_largest_prompt_fits_a_message() -> None:
    """What the producer takes, the workers take."""
    body = json.dumps([["coder", "x" * MAX_BYTES], {}, {}])

    assert len(b64encode(body.encode())) < MAX_MESSAGE_BYTES


def test_what_cannot_travel_is_refused_wherever_it_stands() -> None:
    """A lone surrogate is no character; a provider's SDK would fail on it after the queue."""
    with pytest.raises(InvalidOption) as raised:
        CompletionCall.of("coder", "hi", {"system": "\ud800", "metadata": {"a": "\udfff"}})

    assert len(raised.value.details["faults"]) == 2


def test_no_error_repeats_the_prompt() -> None:
    """What a caller wrote in a prompt never reaches a log by way of an error."""
    secret = "CANARY-PROMPT"
    for prompt in (
        {"x": secret},
        [secret],
        [{"role": secret, "content": secret}],
        secret + "\ud800",
    ):
        with pytest.raises(BadTask) as raised:
            CompletionCall.of("coder", prompt, {})

        assert secret not in repr(raised.value)
    assert secret not in repr(CompletionCall.of("coder", secret, {"system": secret}))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((RESULT, "planner"), {}),
        ((RESULT,), {"role": "planner"}),
        (("planner", RESULT), {}),
        (("planner",), {"prompt": RESULT}),
    ],
)
def test_an_earlier_result_is_the_prompt_of_the_next_stage(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """In a Celery chain the earlier result arrives as first argument; its text is the prompt."""
    role, prompt, options = bind_arguments(args, kwargs)

    assert (role, CompletionCall.of(role, prompt, options).messages[0].content) == (
        "planner",
        "a plan",
    )


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [(([RESULT, RESULT], "planner"), {}), (([RESULT, RESULT],), {"role": "planner"})],
)
def test_earlier_results_are_the_prompt_of_a_chords_body(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """In a Celery chord they arrive as a list; their texts are the prompt, in order."""
    role, prompt, options = bind_arguments(args, kwargs)

    call = CompletionCall.of(role, prompt, options)
    assert (role, call.messages[0].content) == ("planner", "a plan\n\na plan")


@pytest.mark.parametrize(
    "prompt", [[], [RESULT, "more"], [RESULT, {"role": "user", "content": "hi"}]]
)
def test_a_list_that_is_not_of_results_alone_is_none(prompt: object) -> None:
    """It is checked as messages."""
    with pytest.raises(InvalidPrompt):
        CompletionCall.of("planner", prompt, {})


@pytest.mark.parametrize(
    ("args", "kwargs", "error"),
    [
        ((), {}, UnknownRole),
        (("coder",), {}, InvalidPrompt),
        (("coder", "hi", "more"), {}, InvalidOption),
        (("coder", "hi"), {"role": "coder"}, InvalidOption),
    ],
)
def test_arguments_that_cannot_be_sorted_are_refused(
    args: tuple[object, ...], kwargs: dict[str, object], error: type[BadTask]
) -> None:
    """Too few, too many, or one given twice."""
    with pytest.raises(error):
        bind_arguments(args, kwargs)

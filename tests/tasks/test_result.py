"""The result's JSON object: one writer, one reader, and what the reader makes of foreign data."""

import json
from decimal import Decimal
from typing import Any

import pytest

from breakwater.attempt import Attempt, Cost, Usage, attempts_as_json, read_attempts
from breakwater.content import ToolCall
from breakwater.result import Answer, earlier_text, read_result, write_result

SECRET = "a secret prompt"
ATTEMPTS = [
    Attempt("gpt", "m-0", "failed", "RateLimited", 429, 31, why="first of the chain"),
    Attempt("claude", "m-1", "succeeded", latency_ms=812, cost=Cost(Decimal("0.001234"))),
]
ANSWER = Answer(
    task_id="t",
    provider="claude",
    model="m-1",
    text="hi",
    data={"a": [1, None]},
    tool_calls=(ToolCall("c1", "add", {"a": 1}), ToolCall("c2", "now", {}, signature="s")),
    finish_reason="tool_calls",
    usage=Usage(10, 7, 4, 3, None),
)
RESULT = write_result(ANSWER, role="coder", attempts=ATTEMPTS, queued_ms=4, request_id="r")


def through_redis(value: object) -> Any:
    """Return a value as it arrives at another process."""
    return json.loads(json.dumps(value))


def test_a_result_has_the_keys_of_its_contract() -> None:
    """In any language: the keys, their order, and the cost as a decimal string."""
    assert list(RESULT) == [
        "task_id", "role", "text", "data", "tool_calls", "provider", "model", "finish_reason",
        "usage", "cost_usd", "latency_ms", "queued_ms", "request_id", "attempts",
    ]  # fmt: skip
    assert RESULT["tool_calls"][0] == {"id": "c1", "name": "add", "arguments": {"a": 1}}
    assert (RESULT["cost_usd"], RESULT["latency_ms"]) == ("0.001234", 812)
    assert RESULT["attempts"][0] == {
        "provider": "gpt", "model": "m-0", "outcome": "failed", "error": "RateLimited",
        "status": 429, "latency_ms": 31, "cost_usd": None, "why": "first of the chain",
    }  # fmt: skip


def test_duplicates_are_in_a_result_only_where_there_are_some() -> None:
    """Most results have none, and do not carry the key."""
    twice = write_result(ANSWER, role="coder", attempts=ATTEMPTS, queued_ms=4, duplicates=1)

    assert "duplicates" not in RESULT
    assert read_result(through_redis(twice))["duplicates"] == 1


def test_a_result_and_its_parts_come_back_as_they_were_written() -> None:
    """Result, answer and attempts survive JSON."""
    arrived = through_redis(RESULT)

    assert read_result(arrived) == RESULT
    assert Answer.from_dict(arrived) == ANSWER
    assert Answer.from_dict(through_redis(ANSWER.as_dict())) == ANSWER
    assert read_attempts(arrived["attempts"]) == ATTEMPTS


def test_unknown_keys_of_a_newer_version_are_no_matter() -> None:
    """A result keeps them for its reader; parts leave them out."""
    arrived = through_redis(RESULT)
    arrived["seed"] = 7
    arrived["usage"]["audio_tokens"] = 3
    arrived["attempts"][1]["region"] = "eu"
    arrived["attempts"][1]["outcome"] = "hedged"

    assert read_result(arrived)["seed"] == 7  # type: ignore[typeddict-item]
    assert Answer.from_dict(arrived) == ANSWER
    assert Attempt.from_dict(arrived["attempts"][1]).outcome == "hedged"


def test_missing_keys_have_neutral_values() -> None:
    """A paid answer is not refused because a worker in another language left keys out."""
    bare = {"task_id": "t", "provider": "p", "model": "m", "text": "hi", "finish_reason": "stop"}

    result = read_result(bare)

    assert result["usage"] == dict.fromkeys(ANSWER.usage.as_dict())
    assert (result["data"], result["tool_calls"], result["attempts"]) == (None, [], [])
    assert (result["cost_usd"], result["queued_ms"], result["role"]) == (None, 0, "")
    assert Attempt.from_dict({"provider": "p", "model": "m", "outcome": "failed"}) == Attempt(
        "p", "m", "failed"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": [SECRET]}, "an answer: text must be of type str, not list"),
        ({"task_id": 3}, "an answer: task_id must be of type str, not int"),
        ({"usage": SECRET}, "an answer: usage must be of type Mapping, not str"),
        ({"usage": {"input_tokens": "3"}}, "a usage: input_tokens must be of type int or NoneType"),
        ({"usage": {"input_tokens": True}}, "a usage: input_tokens must be of type int"),
        ({"tool_calls": [SECRET]}, "a tool call must be a JSON object, not a value of type str"),
        ({"tool_calls": [{"id": "c"}]}, "a tool call has no arguments, name"),
        ({"attempts": {}}, "a result: attempts must be of type list or tuple, not dict"),
        ({"latency_ms": None}, "a result: latency_ms must be of type int, not NoneType"),
        ({"cost_usd": 0.1}, "a result: cost_usd must be of type str or NoneType, not float"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(changed: dict[str, Any], message: str) -> None:
    """The message names the key and the types, never the value: it may be part of an answer."""
    with pytest.raises(ValueError, match=r"must be|has no") as refused:
        read_result({**RESULT, **changed})

    assert message in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("value", [None, 3, SECRET, [], [RESULT], {"text": SECRET}])
def test_something_else_is_not_a_result(value: object) -> None:
    """Such as the result of a task that is not `complete`."""
    with pytest.raises(ValueError, match="an answer") as refused:
        read_result(value)

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"provider": None},
        {"outcome": 1},
        {"status": "429"},
        {"latency_ms": 1.5},
        {"cost_usd": "much"},
        {"cost_usd": "NaN"},
        {"cost_usd": "Infinity"},
    ],
)
def test_an_attempt_of_the_wrong_types_is_refused(changed: dict[str, Any]) -> None:
    """And left out where a whole history is read: the task and its other attempts go on."""
    good, bad = ATTEMPTS[0].as_dict(), {**ATTEMPTS[1].as_dict(), **changed}

    with pytest.raises(ValueError, match="an attempt"):
        Attempt.from_dict(bad)
    assert read_attempts([good, bad, "x", None, {}]) == [ATTEMPTS[0]]
    assert attempts_as_json(read_attempts([good])) == [good]


def test_only_results_are_the_text_of_an_earlier_stage() -> None:
    """One from a chain, several from a chord; a mixed list is a prompt like any other."""
    assert earlier_text(RESULT) == "hi"
    assert earlier_text([RESULT, RESULT]) == "hi\n\nhi"
    assert earlier_text([RESULT, {"role": "user", "content": "x"}]) is None
    assert earlier_text([]) is None
    assert earlier_text("hi") is None

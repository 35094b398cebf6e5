"""
The result of a task: the JSON object that `result.get()` returns.

`write_result` is the only writer of this object, and `read_result` its only reader. The response
cache stores an `Answer`: the part of a result that is the same for every task that asks the same.
Both readers ignore keys that a newer version added. They fill in optional keys that are missing,
and they refuse a value of the wrong type.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, NotRequired, TypedDict, cast

from breakwater.attempt import UNCOUNTED, Attempt, AttemptJson, Usage, UsageJson
from breakwater.content import FinishReason, ToolCall, ToolCallJson, read_fields


class Result(TypedDict):
    """The result of one task, as `result.get()` returns it; docs/completions.md explains it."""

    task_id: str
    role: str
    text: str
    data: Any
    """The value that satisfies the call's schema; None if the call has no schema."""
    tool_calls: list[ToolCallJson]
    provider: str
    """The name of the provider in the roles file."""
    model: str
    """The model that answered, as the provider names it."""
    finish_reason: FinishReason
    usage: UsageJson
    cost_usd: str | None
    """US dollars, a decimal string; None if no price is known (never 0)."""
    latency_ms: int
    """The duration of the call that was answered."""
    queued_ms: int
    """The time from enqueueing until a worker started the task."""
    request_id: str | None
    """The provider's id of the request."""
    attempts: list[AttemptJson]
    """Each target that was called or passed over, in order; the last one answered."""
    duplicates: NotRequired[int]
    """The number of calls that may have been paid for without an answer; absent if none was."""


_ANSWER_TYPES: Mapping[str, tuple[type, ...]] = {
    "task_id": (str,),
    "provider": (str,),
    "model": (str,),
    "text": (str,),
    "tool_calls": (list, tuple),
    "finish_reason": (str,),
    "usage": (Mapping,),
}
_RESULT_TYPES: Mapping[str, tuple[type, ...]] = {
    "role": (str,),
    "cost_usd": (str, NoneType),
    "latency_ms": (int,),
    "queued_ms": (int,),
    "request_id": (str, NoneType),
    "attempts": (list, tuple),
    "duplicates": (int,),
}
_REQUIRED = frozenset({"task_id", "provider", "model", "text", "finish_reason"})
_MARKS = frozenset({"task_id", "role", "text", "attempts"})
"""A JSON object with these keys is the result of an earlier stage of a Celery canvas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a provider, with the id of the task that called it."""

    task_id: str
    provider: str
    model: str
    text: str = field(repr=False)
    data: object = field(default=None, repr=False)
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason
    usage: Usage = UNCOUNTED

    def as_dict(self) -> dict[str, object]:
        """Return the answer as a JSON object."""
        return {
            "task_id": self.task_id,
            "provider": self.provider,
            "model": self.model,
            "text": self.text,
            "data": self.data,
            "tool_calls": [tool_call.as_dict() for tool_call in self.tool_calls],
            "finish_reason": self.finish_reason,
            "usage": self.usage.as_dict(),
        }

    @classmethod
    def from_dict(cls, value: object) -> "Answer":
        """
        Read an answer from a JSON object that `as_dict` or `write_result` wrote.

        Raises:
            ValueError: A required key is missing, or a value has the wrong type.
        """
        fields = read_fields("an answer", value, _ANSWER_TYPES, _REQUIRED)
        tool_calls = tuple(ToolCall.from_dict(each) for each in fields.pop("tool_calls", ()))
        usage = Usage.from_dict(fields.pop("usage", {}))
        data = cast("Mapping[str, object]", value).get("data")
        return cls(**fields, tool_calls=tool_calls, usage=usage, data=data)


def write_result(
    answer: Answer,
    *,
    role: str,
    attempts: Iterable[Attempt],
    queued_ms: int,
    request_id: str | None = None,
    duplicates: int = 0,
) -> Result:
    """
    Build the result of a task.

    Args:
        answer: The answer of the last attempt.
        attempts: All attempts of the task in order; the last one answered.
        queued_ms: The time from enqueueing until a worker started the task.
        request_id: The provider's id of the request.
        duplicates: The number of calls that may have been paid for without an answer.
    """
    history = list(attempts)
    result = Result(
        task_id=answer.task_id,
        role=role,
        text=answer.text,
        data=answer.data,
        tool_calls=[tool_call.as_dict() for tool_call in answer.tool_calls],
        provider=answer.provider,
        model=answer.model,
        finish_reason=answer.finish_reason,
        usage=answer.usage.as_dict(),
        cost_usd=history[-1].cost.text,
        latency_ms=history[-1].latency_ms,
        queued_ms=queued_ms,
        request_id=request_id,
        attempts=[attempt.as_dict() for attempt in history],
    )
    if duplicates:
        result["duplicates"] = duplicates
    return result


def read_result(value: object) -> Result:
    """
    Check a result that comes from Redis or from a caller, and fill in its optional keys.

    Unknown keys are kept: a newer worker may have added them.

    Raises:
        ValueError: It is not a JSON object, a required key is missing, or a value has the wrong
            type. The message never contains the value.
    """
    answer = Answer.from_dict(value)
    fields = read_fields("a result", value, _RESULT_TYPES)
    defaults: dict[str, object] = {
        "role": "", "cost_usd": None, "latency_ms": 0, "queued_ms": 0, "request_id": None,
        "attempts": [],
    }  # fmt: skip
    unknown = dict(cast("Mapping[str, object]", value))
    return cast("Result", {**unknown, **defaults, **answer.as_dict(), **fields})


def earlier_text(value: object) -> str | None:
    """
    Return the text of results of an earlier stage of a canvas; None if the value is not such.

    A chain hands on one result, the body of a chord a list of them.
    """
    results = value if isinstance(value, list | tuple) else [value]
    texts = [
        each["text"] for each in results if isinstance(each, Mapping) and each.keys() >= _MARKS
    ]
    if not texts or len(texts) < len(results) or not all(isinstance(t, str) for t in texts):
        return None
    return "\n\n".join(texts)

"""The parts of prompts and answers: messages, media, tools, and the pieces of a stream."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, NotRequired, TypedDict

JsonObject = dict[str, Any]
"""A JSON object; the reader of a value checks its type."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal"]


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a document in a message: by URL, or its bytes in base64."""

    kind: Literal["image", "document"]
    url: str | None = field(default=None, repr=False)
    data: str | None = field(default=None, repr=False)
    """Base64; None if there is a URL."""
    media_type: str | None = None
    """For example `image/png` or `application/pdf`; always set if there is data."""
    name: str | None = field(default=None, repr=False)
    """A document's file name."""


class ToolCallJson(TypedDict):
    """`ToolCall` as the JSON object in results and prompts."""

    id: str
    name: str
    arguments: JsonObject
    signature: NotRequired[str]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that the model asks for."""

    id: str
    """The vendor's id, or ours if the vendor sent none. The tool's result refers to it."""
    name: str
    arguments: Mapping[str, object] = field(repr=False)
    signature: str | None = field(default=None, repr=False)
    """The vendor expects this value back unchanged with the tool's result; None if it sent none."""

    def as_dict(self) -> ToolCallJson:
        """Return the call as the result's JSON object."""
        call = ToolCallJson(id=self.id, name=self.name, arguments=dict(self.arguments))
        if self.signature:
            call["signature"] = self.signature
        return call

    @classmethod
    def from_dict(cls, value: object) -> "ToolCall":
        """
        Read a tool call from the JSON object that `as_dict` wrote; ignore unknown keys.

        Raises:
            ValueError: A key is missing, or a value has the wrong type.
        """
        return cls(
            **read_fields("a tool call", value, _TOOL_CALL, _TOOL_CALL.keys() - {"signature"})
        )


_TOOL_CALL: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "name": (str,),
    "arguments": (dict,),
    "signature": (str, NoneType),
}
_REQUIRED = frozenset({"id", "name", "arguments"})


@dataclass(frozen=True, slots=True)
class Message:
    """
    One turn of a conversation.

    A message of the role `tool` holds what a tool returned; `tool_call_id` and `name` are the
    id and the name of the call.
    """

    role: Literal["user", "assistant", "system", "tool"]
    content: str | tuple[str | Media, ...] = field(repr=False)
    """Plain text; or the parts in order, if there is an image or a document among them."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls that the assistant asks for in this message."""
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def parts(self) -> tuple[str | Media, ...]:
        """The content as parts, in order."""
        if isinstance(self.content, str):
            return (self.content,)
        return self.content


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask the caller to run; Breakwater never runs it."""

    name: str
    description: str = field(default="", repr=False)
    parameters: Mapping[str, object] = field(default_factory=dict, repr=False)
    """The JSON Schema of an object."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of an answer's text."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The next piece of a tool call; `id` and `name` come with the first piece."""

    index: int
    """The tool call's position in the answer, from 0."""
    id: str | None = None
    name: str | None = None
    arguments: str = field(default="", repr=False)
    """A piece of the JSON text of the arguments."""


Delta = TextDelta | ToolCallDelta


def read_fields(
    noun: str,
    value: object,
    types: Mapping[str, tuple[type, ...]],
    required: Set[str] = frozenset(),
) -> dict[str, Any]:
    """
    Read the known fields of a JSON object; ignore all others.

    Args:
        noun: The noun for messages, such as `an attempt`.
        types: The types that each known field may have.
        required: The fields that must exist.

    Raises:
        ValueError: It is not an object, a required field is missing, or a value has a type that
            its field may not have. The message names field and type, never the value.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{noun} must be a JSON object, not a value of type {_type(value)}")
    if missing := sorted(required - value.keys()):
        raise ValueError(f"{noun} has no {', '.join(missing)}")
    fields = {name: value[name] for name in types if name in value}
    for name, each in fields.items():
        # True and False are of type int in Python, and no number in JSON.
        if isinstance(each, bool) or not isinstance(each, types[name]):
            allowed = " or ".join(kind.__name__ for kind in types[name])
            raise ValueError(f"{noun}: {name} must be of type {allowed}, not {_type(each)}")
    return fields


def _type(value: object) -> str:
    return type(value).__name__

"""What prompts and answers are made of: messages, media, tools, and the pieces of a stream."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, NotRequired, TypedDict

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal"]


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a document in a message: by URL, or its bytes in base64."""

    kind: Literal["image", "document"]
    url: str | None = field(default=None, repr=False)
    data: str | None = field(default=None, repr=False)
    """Base64; None where there is a URL."""
    media_type: str | None = None
    """Such as `image/png` or `application/pdf`; given wherever there is data."""
    name: str | None = field(default=None, repr=False)
    """A document's file name."""


class ToolCallJson(TypedDict):
    """`ToolCall` as the JSON object in results and prompts."""

    id: str
    name: str
    arguments: dict[str, Any]
    signature: NotRequired[str]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants to have called."""

    id: str
    """The vendor's; ours where it gave none. The tool's result names it."""
    name: str
    arguments: Mapping[str, Any] = field(repr=False)
    signature: str | None = field(default=None, repr=False)
    """What the vendor wants back with the tool's result, untouched; None where it wants nothing."""

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

    A turn of `tool` is what a tool returned; `tool_call_id` and `name` are those of the call.
    """

    role: Literal["user", "assistant", "system", "tool"]
    content: str | tuple[str | Media, ...] = field(repr=False)
    """Plain text, or its parts in order where there is an image or a document among them."""
    tool_calls: tuple[ToolCall, ...] = ()
    """What an assistant asked for in this turn."""
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The text alone."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def parts(self) -> tuple[str | Media, ...]:
        """The content as parts, in order."""
        return (self.content,) if isinstance(self.content, str) else self.content


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask to have called; nothing here calls it."""

    name: str
    description: str = field(default="", repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """A JSON Schema of an object."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of an answer's text."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The next piece of a tool call; `id` and `name` come with its first."""

    index: int
    """Of the call in the answer, from 0."""
    id: str | None = None
    name: str | None = None
    arguments: str = field(default="", repr=False)
    """A piece of the arguments' JSON text."""


Delta = TextDelta | ToolCallDelta


def read_fields(
    what: str,
    value: object,
    types: Mapping[str, tuple[type, ...]],
    required: Set[str] = frozenset(),
) -> dict[str, Any]:
    """
    Read the known fields of a JSON object; ignore all others.

    Args:
        what: The noun for messages, such as `an attempt`.
        types: The types that each known field may have.
        required: The fields that must exist.

    Raises:
        ValueError: It is not an object, a required field is missing, or a value has a type that
            its field may not have. The message names field and type, never the value.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a JSON object, not a value of type {_type(value)}")
    if missing := sorted(required - value.keys()):
        raise ValueError(f"{what} has no {', '.join(missing)}")
    fields = {name: value[name] for name in types if name in value}
    for name, each in fields.items():
        # True and False are of type int in Python, and no number in JSON.
        if isinstance(each, bool) or not isinstance(each, types[name]):
            allowed = " or ".join(kind.__name__ for kind in types[name])
            raise ValueError(f"{what}: {name} must be of type {allowed}, not {_type(each)}")
    return fields


def _type(value: object) -> str:
    return type(value).__name__

"""What prompts and answers are made of: messages, media, tools, and the pieces of a stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants to have called."""

    id: str
    """The vendor's; ours where it gave none. The tool's result names it."""
    name: str
    arguments: Mapping[str, Any] = field(repr=False)
    signature: str | None = field(default=None, repr=False)
    """What the vendor wants back with the tool's result, untouched; None where it wants nothing."""

    def as_dict(self) -> dict[str, Any]:
        """Return the call as the result's JSON object."""
        told = {"id": self.id, "name": self.name, "arguments": dict(self.arguments)}
        return {**told, "signature": self.signature} if self.signature else told


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

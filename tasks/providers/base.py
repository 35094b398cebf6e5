"""
The seam between routing and a vendor: one request in, one completion out, or a typed error.

An adapter (one a file beside this one) implements `Provider` through the vendor's official SDK
and translates both ways; nothing above this file knows a vendor's words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

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


@dataclass(frozen=True, slots=True)
class Request:
    """
    What to ask, in our words; each adapter maps them to its vendor's.

    `params` are the merged parameters of the target (see `tasks.config.PARAMS` for the names),
    `timeout_s` bounds the whole call and is never longer than the task's remaining deadline.
    With `on_delta` the answer is streamed: each piece is handed over as it comes, and the whole is
    returned at the end all the same.
    """

    messages: Sequence[Message] = field(repr=False)
    model: str
    system: str | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 120.0
    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    """The JSON Schema that the answer's text has to satisfy as JSON; who asks validates it."""
    tools: Sequence[Tool] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required` (any of them), or the name of one."""
    on_delta: Callable[[Delta], None] | None = field(default=None, repr=False, compare=False)
    """Takes a piece of the answer and returns at once; None: nobody reads along."""
    first_token_s: float | None = None
    """How long a stream may take to its first delta; None: as long as the whole call."""
    between_tokens_s: float | None = None
    """How long a stream may be silent between two deltas; None: as long as the whole call."""
    before_sending: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    """Called right before the request's first byte goes out; if it raises, none does."""


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens as the provider counted them; None where it did not count, or sent no whole number.

    `input_tokens` counts all input, cached and cache-written included; `output_tokens` all that
    is billed as output, reasoning included.
    """

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cached_input_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    reasoning_tokens: int | None = 0

    def as_dict(self) -> dict[str, int | None]:
        """Return the counts as the result's JSON object."""
        return asdict(self)


UNCOUNTED = Usage(None, None, None, None, None)
"""The usage of an answer whose provider sent no counts."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One whole answer."""

    text: str = field(repr=False)
    model: str
    """The model that answered, in the vendor's words; may be dated."""
    finish_reason: FinishReason
    usage: Usage
    request_id: str | None = None
    """The vendor's id of the request, None where it gave none."""
    response_id: str | None = None
    """The vendor's id of the answer, None where it gave none."""
    tool_calls: tuple[ToolCall, ...] = ()
    data: Any = field(default=None, repr=False)
    """What the text says as JSON, where a schema was asked for and is satisfied."""


class Provider(Protocol):
    """
    One vendor, account and default model, ready to be asked by any number of threads.

    Built once per process, after the fork.
    """

    def complete(self, request: Request) -> Completion:
        """
        Ask the provider and wait for the whole answer.

        Raises:
            ProviderError: With the class whose verdict fits; never a vendor's own error.
        """

    def check(self) -> str:
        """
        Prove the key with a call that costs nothing; return one line for `breakwater doctor`.

        Raises:
            ProviderError: As `complete` does.
        """

    def close(self) -> None:
        """Close the connections; a call still running, and any later one, fails with Cancelled."""

"""
The interface of a provider: one request in, one completion out, or a typed error.

Each adapter, in a file beside this one, implements `Provider` through its vendor's official SDK and
translates both ways. Code outside this folder uses no vendor's words.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeGuard

from breakwater.attempt import UNCOUNTED, Usage
from breakwater.content import (
    Delta,
    FinishReason,
    Media,
    Message,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
)

__all__ = [
    "UNCOUNTED",
    "Completion",
    "Delta",
    "FinishReason",
    "Media",
    "Message",
    "Provider",
    "Request",
    "TextDelta",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
]


@dataclass(frozen=True, slots=True)
class Request:
    """
    One call of a model, in our words; each adapter maps them to its vendor's.

    `params` are the merged parameters of the target; `breakwater.calls.params.PARAMS` has their
    names. `timeout_s` bounds the whole call, and never exceeds the task's remaining deadline. With
    `on_delta` the answer is streamed: the listener receives each piece as it comes, and the whole
    answer is returned at the end all the same.
    """

    messages: Sequence[Message] = field(repr=False)
    model: str
    system: str | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 120.0
    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    """The JSON Schema for the answer's text, as JSON; the caller validates the answer."""
    tools: Sequence[Tool] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required` (any tool), or the name of a tool."""
    on_delta: Callable[[Delta], None] | None = field(default=None, repr=False, compare=False)
    """Receives a piece of the answer, and returns at once; None: the answer is not streamed."""
    first_token_s: float | None = None
    """The timeout of a stream's first delta; None: that of the whole call."""
    between_tokens_s: float | None = None
    """The timeout between two deltas of a stream; None: that of the whole call."""
    before_sending: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    """Called right before the first byte is sent; if it raises, the request is not sent."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One whole answer."""

    text: str = field(repr=False)
    model: str
    """The model that answered, by the vendor's name; the name may have a date."""
    finish_reason: FinishReason
    usage: Usage
    request_id: str | None = None
    """The vendor's id of the request; None if it sent none."""
    response_id: str | None = None
    """The vendor's id of the answer; None if it sent none."""
    tool_calls: tuple[ToolCall, ...] = ()
    data: Any = field(default=None, repr=False)
    """The text as parsed JSON, if it satisfies the requested schema."""


class Provider(Protocol):
    """
    One vendor, account and default model; any number of threads may call it.

    It is built once per process, after the fork.
    """

    def complete(self, request: Request) -> Completion:
        """
        Call the provider and wait for the whole answer.

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
        """Close the connections; running calls, and any later ones, fail with Cancelled."""


class HookCallingProvider(Provider, Protocol):
    """
    A provider whose `complete` calls `request.before_sending` itself.

    It calls it right before the request's first byte is sent. For any other provider the caller of
    `complete` calls it first, so a call that could not even connect counts as sent.
    """

    calls_before_sending_hook: Literal[True]


class ListingProvider(Provider, Protocol):
    """A provider that keeps the list of models which its `check` has read."""

    known_models: Collection[str] | None
    """None: `check` has not read it yet."""


def calls_hook(provider: Provider) -> TypeGuard[HookCallingProvider]:
    """Return whether a provider calls `request.before_sending` itself."""
    return bool(getattr(provider, "calls_before_sending_hook", False))


def known_models(provider: Provider) -> Collection[str]:
    """Return the models that a provider lists; empty if it keeps no list, or has not read it."""
    return getattr(provider, "known_models", None) or ()

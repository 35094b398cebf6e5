"""
The seam between routing and a vendor: one request in, one completion out, or a typed error.

An adapter (one a file beside this one) implements `Provider` through the vendor's official SDK
and translates both ways; nothing above this file knows a vendor's words.
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

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
class Message:
    """One turn of a conversation; content parts are joined to plain text at the door."""

    role: Literal["user", "assistant", "system"]
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """
    What to ask, in our words; each adapter maps them to its vendor's.

    `params` are the merged parameters of the target (see `tasks.config.PARAMS` for the names),
    `timeout_s` bounds the whole call and is never longer than the task's remaining deadline.
    """

    messages: Sequence[Message] = field(repr=False)
    model: str
    system: str | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 120.0
    before_sending: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    """Called right before the request's first byte goes out; if it raises, none does."""


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens as the provider counted them.

    `input_tokens` counts all input, cached and cache-written included; `output_tokens` all that
    is billed as output, reasoning included.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts as the result's JSON object."""
        return asdict(self)


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

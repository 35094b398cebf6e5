"""
The interface of a wire format: it reads a vendor's requests, writes answers, errors and streams.

The four of them (one a file beside this one) differ in words and shapes alone; faults, delays
and the log know only what stands here.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from simulator.connection import Request, json_bytes
from simulator.wires.answer import Answer
from simulator.wires.asked import Asked

# The kind of error whose body is sent with a `status` alone.
STATUS_KINDS = {
    400: "invalid", 401: "unauthenticated", 402: "payment", 403: "permission",
    404: "model_not_found", 408: "timeout", 413: "too_large", 429: "rate_limited",
    500: "server_error", 502: "bad_gateway", 503: "unavailable", 504: "gateway_timeout",
    529: "overloaded",
}  # fmt: skip
ERROR_KINDS = frozenset(STATUS_KINDS.values()) | {
    "auth", "quota", "usage_limit", "context_window", "content_filtered",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Error:
    """One row of a vendor's error table."""

    status: int
    type: str
    """Anthropic's and OpenAI's `error.type`, Google's `error.status`."""
    message: str
    """`{model}` stands for the requested model."""
    code: str | None = None
    """Anthropic's `details.error_code`, OpenAI's `code`, Google's reason or quota id."""


class Rejected(Exception):  # noqa: N818 - a reply to send, not an error of this program
    """The vendor would reject this request, with this kind of error and this message."""

    def __init__(self, kind: str, message: str | None = None) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message


class Wire(ABC):
    """One wire format."""

    name: ClassVar[str]
    errors: ClassVar[Mapping[str, Error]]
    """Every one of `ERROR_KINDS`; Google alone has no `content_filtered`."""
    blind: ClassVar[str]
    """The message of a model without images or documents; `{model}` as in an error."""
    opening: ClassVar[int] = 0
    """The number of a stream's events before the first part of the answer."""
    ping: ClassVar[bytes] = b": keep-alive\n\n"
    """The bytes that keep a silent stream alive: a comment, or what the vendor's SDK ignores."""
    marks_cache: ClassVar[bool] = False
    """Whether the request marks the prefixes to cache, and writing them is counted."""

    @abstractmethod
    def read(self, request: Request, body: dict[str, Any]) -> Asked:
        """
        Read a request's body.

        Raises:
            Rejected: The vendor would refuse it.
        """

    @abstractmethod
    def plain(self, answer: Answer) -> dict[str, Any]:
        """Return the answer's JSON object."""

    @abstractmethod
    def events(self, answer: Answer) -> list[bytes]:
        """Return the answer as server-sent events; the last event is never in the first half."""

    @abstractmethod
    def error_body(self, error: Error, request_id: str, retry_s: float | None) -> dict[str, Any]:
        """Return an error's JSON object; `retry_s` is set if the body must contain it."""

    @abstractmethod
    def error_events(self, error: Error, answer: Answer) -> list[bytes]:
        """Return the events that end a stream with an error."""

    @abstractmethod
    def models(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the list of models, which SDKs read to check a key."""

    @abstractmethod
    def headers(self, request_id: str, limit: int, remaining: int) -> dict[str, str]:
        """Return the vendor's own headers: the request's id, and the rate limit's state."""

    def retry_form(self, seconds: float) -> str:
        """Return the form in which this vendor sends Retry-After."""
        return "seconds" if float(seconds).is_integer() else "fraction"

    def check_key(self, key: str, accepted: Sequence[str] | None) -> None:
        """
        Refuse a key as the vendor would; `accepted` None takes any but the empty one.

        Raises:
            Rejected: In the vendor's words for a missing or a wrong key.
        """
        if not key and "" not in (accepted or ()):
            raise Rejected("unauthenticated")
        if accepted is not None and key not in accepted:
            raise Rejected("auth")


def sse(data: object, event: str | None = None, end: bytes = b"\n\n") -> bytes:
    """Write one server-sent event."""
    head = b"event: " + event.encode() + b"\n" if event else b""
    return head + b"data: " + json_bytes(data) + end

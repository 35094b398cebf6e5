"""Forward a streamed answer to its listener, piece by piece, and watch its timeouts."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from billiard.exceptions import SoftTimeLimitExceeded

from breakwater.content import Delta, TextDelta, ToolCallDelta
from breakwater.errors import GarbledAnswer, ProviderError, TruncatedAnswer
from tasks.providers.base import Request
from tasks.providers.http.call_limits import StreamTimeouts
from tasks.providers.json_values import JsonObject
from tasks.providers.round_trip import UniqueCallIds, valid_tool_name
from tasks.providers.streams.sse import NotAStreamError, events

LINGER_S = 2.0
"""How long a complete stream may take to end; only then can its connection be reused."""
DONE = "[DONE]"
"""How OpenAI, and most servers with its wire format, end a stream."""

E = TypeVar("E")

ReadError = Callable[[Mapping[str, object]], ProviderError]
"""Builds the error that an error body describes."""


class StreamObject(NamedTuple):
    """A JSON object read from a stream."""

    event_name: str
    """The name of its event; empty if the event has none."""
    body: JsonObject


class StreamRelay:
    """
    Forwards one stream to one listener.

    Args:
        on_delta: The listener: the request's `on_delta`.
        request: The request; its timeouts between tokens apply, and its tools are known by name.
    """

    def __init__(self, on_delta: Callable[[Delta], None], request: Request) -> None:
        self._on_delta = on_delta
        self.tool_names = frozenset(tool.name for tool in request.tools)
        """Names of the tools that the request offers."""
        self.timeouts = StreamTimeouts(request.first_token_s, request.between_tokens_s)
        self._is_complete = False
        self._is_done = False
        self._sent_chars = 0
        self._call_ids = UniqueCallIds()
        self._opened_calls: set[int] = set()
        self.listener_error: Exception | None = None
        """The error that the listener raised; not the provider's failure."""

    def objects(self, chunks: Iterable[bytes]) -> Iterator[StreamObject]:
        """
        Read a stream's JSON objects until it ends.

        Whatever follows `[DONE]` is ignored, and so is data that is not JSON at all (a keep-alive
        written as an event).

        Args:
            chunks: The body, as it arrives.

        Raises:
            TruncatedAnswer: The body ended before its first object.
            GarbledAnswer: The body is not a stream.
            json.JSONDecodeError: An object is broken, or cut off.
        """
        has_begun = False
        try:
            for event in events(self._until_end(chunks)):
                data = event.data.removeprefix("data:").strip()  # gateways that prefix it twice
                if data[: len(DONE)].upper() == DONE:
                    self._is_done = True
                    self.mark_complete()
                if self._is_done or data[:1] not in {"{", "["}:
                    continue
                value = json.loads(data)
                if isinstance(value, dict):
                    has_begun = True
                    yield StreamObject(event.name, value)
                    continue
                for each in value:
                    if isinstance(each, dict):
                        has_begun = True
                        yield StreamObject(event.name, each)
        except NotAStreamError as error:
            raise GarbledAnswer(str(error)) from None
        if not has_begun:
            raise TruncatedAnswer("the stream ended before it began")

    def _until_end(self, stream: Iterable[E]) -> Iterator[E]:
        """
        Yield what a stream brings until it ends.

        After `mark_complete` the answer is whole and must be paid for: an error of the connection
        then ends the stream without a failure.
        """
        pieces = iter(stream)
        while True:
            try:
                piece = next(pieces)
            except StopIteration:
                return
            except Exception:
                if self._is_complete:
                    return
                raise
            yield piece

    def mark_complete(self) -> None:
        """Note the stream's own end, which is more than a finish reason: the answer is whole."""
        self._is_complete = True
        self.timeouts.end_within(LINGER_S)

    def send_text(self, piece: str | None) -> None:
        """Forward the next piece of text."""
        if piece:
            self._sent_chars += len(piece)
            self._send(TextDelta(piece))

    def send_missing_text(self, text: str) -> None:
        """Forward the end of the whole text, if not all of it came in pieces."""
        self.send_text(text[self._sent_chars :])

    def send_tool_call(
        self, index: int, id_: str | None = None, name: str | None = None, arguments: str = ""
    ) -> None:
        """Forward the next piece of a tool call, with the id and name that the result will have."""
        if index not in self._opened_calls and (id_ or name):
            self._opened_calls.add(index)
            if id_:
                id_ = self._call_ids.unique(id_)
            if name and name.strip():
                name = valid_tool_name(name.strip())
        if id_ or name or arguments:
            self._send(ToolCallDelta(index, id_, name, arguments))

    def keep_alive(self) -> None:
        """Restart the timeout between tokens: reasoning, a refusal or a finish reason came."""
        self.timeouts.token_received()

    def _send(self, delta: Delta) -> None:
        self._is_complete = self._is_done  # more text came: the end was not the end
        try:
            self._on_delta(delta)
        except SoftTimeLimitExceeded:
            raise  # the task's time limit may strike anywhere; it is not the listener's error
        except Exception as error:
            self.listener_error = error
            raise
        self.timeouts.token_received()  # afterwards: a slow listener is not the provider's fault

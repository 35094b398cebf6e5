"""What a streamed answer passes through on its way: told on piece by piece, and paced."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from billiard.exceptions import SoftTimeLimitExceeded

from breakwater.content import Delta, TextDelta, ToolCallDelta
from breakwater.errors import GarbledAnswer, TruncatedAnswer
from tasks.providers.base import Request
from tasks.providers.http.call_limits import Pace
from tasks.providers.round_trip import Naming, name_of
from tasks.providers.streams.sse import NotAStreamError, events

LINGER_S = 2.0
"""How long a stream that has said all may take to end; only then can its connection be reused."""
DONE = "[DONE]"
"""How OpenAI, and most who speak its wire format, end a stream."""

E = TypeVar("E")


class Said(NamedTuple):
    """A JSON object that a stream brought."""

    name: str
    """Of its event; empty if it has none."""
    body: dict[str, Any]


class Hearing:
    """
    Who listens to one stream.

    Args:
        tell: The request's `on_delta`.
        request: Whose pace holds.
    """

    def __init__(self, tell: Callable[[Delta], None], request: Request) -> None:
        self._tell = tell
        self.tools = frozenset(tool.name for tool in request.tools)
        """Names of the tools that were offered."""
        self.pace = Pace(request.first_token_s, request.between_tokens_s)
        self._is_whole = False
        self._is_done = False
        self._told = 0
        self._naming = Naming()
        self._opened: set[int] = set()
        self.broke: Exception | None = None
        """What the listener raised: none of the provider's business."""

    def objects(self, chunks: Iterable[bytes]) -> Iterator[Said]:
        """
        Read a stream's JSON objects until it ends.

        What follows `[DONE]` is not read, and data that is no JSON at all (a keep-alive written as
        an event) is passed over.

        Args:
            chunks: The body, as it comes.

        Raises:
            TruncatedAnswer: It ended before anything came.
            GarbledAnswer: It is no stream.
            json.JSONDecodeError: An object is broken, or cut off.
        """
        has_begun = False
        try:
            for event in events(self.events(chunks)):
                data = event.data.removeprefix("data:").strip()  # gateways that prefix it twice
                if data[: len(DONE)].upper() == DONE:
                    self._is_done = True
                    self.complete()
                if self._is_done or data[:1] not in {"{", "["}:
                    continue
                value = json.loads(data)
                for each in value if isinstance(value, list) else [value]:
                    if isinstance(each, dict):
                        has_begun = True
                        yield Said(event.name, each)
        except NotAStreamError as error:
            raise GarbledAnswer(str(error)) from None
        if not has_begun:
            raise TruncatedAnswer("the stream ended before it began")

    def events(self, stream: Iterable[E]) -> Iterator[E]:
        """
        Pass on what a stream brings until it ends.

        Once `complete` was called the answer is there and has to be paid: nothing that happens to
        the connection after that makes it fail.
        """
        events = iter(stream)
        while True:
            try:
                event = next(events)
            except StopIteration:
                return
            except Exception:
                if self._is_whole:
                    return
                raise
            yield event

    def complete(self) -> None:
        """Note that all has been said: the stream's own end came, not only a finish reason."""
        self._is_whole = True
        self.pace.linger(LINGER_S)

    def text(self, piece: str | None) -> None:
        """Tell the next piece of text on."""
        if piece:
            self._told += len(piece)
            self._hand(TextDelta(piece))

    def rest(self, text: str) -> None:
        """Tell what is left of the whole text, where pieces of it were missing."""
        self.text(text[self._told :])

    def call(
        self, index: int, id_: str | None = None, name: str | None = None, arguments: str = ""
    ) -> None:
        """Tell the next piece of a tool call on; its id and name are those of the result."""
        if index not in self._opened and (id_ or name):
            self._opened.add(index)
            id_ = self._naming.id(id_) if id_ else id_
            name = name_of(name.strip()) if name and name.strip() else name
        if id_ or name or arguments:
            self._hand(ToolCallDelta(index, id_, name, arguments))

    def sign(self) -> None:
        """Note a sign of life that is no text: reasoning, a refusal, a finish reason."""
        self.pace.heard()

    def _hand(self, delta: Delta) -> None:
        self._is_whole = self._is_done  # an end that was no end
        try:
            self._tell(delta)
        except SoftTimeLimitExceeded:
            raise  # the task's time is over wherever it strikes; not the listener's
        except Exception as error:
            self.broke = error
            raise
        self.pace.heard()  # afterwards, so that a slow listener is not the provider's fault

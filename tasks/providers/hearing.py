"""What a streamed answer passes through on its way: told on piece by piece, and paced."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from billiard.exceptions import SoftTimeLimitExceeded

from tasks.providers.base import Delta, Request, TextDelta, ToolCallDelta
from tasks.providers.terms import Pace

LINGER_S = 2.0
"""How long a stream that has said all may take to end; only then can its connection be reused."""

E = TypeVar("E")


class Hearing:
    """
    Who listens to one stream.

    Args:
        tell: The request's `on_delta`.
        request: Whose pace holds.
    """

    def __init__(self, tell: Callable[[Delta], None], request: Request) -> None:
        self._tell = tell
        self.pace = Pace(request.first_token_s, request.between_tokens_s)
        self._is_whole = False
        self.broke: Exception | None = None
        """What the listener raised: none of the provider's business."""

    def events(self, stream: Iterable[E]) -> Iterator[E]:
        """
        Pass a stream's events on until it ends.

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
        """Note that all has been said."""
        self._is_whole = True
        self.pace.linger(LINGER_S)

    def text(self, piece: str | None) -> None:
        """Tell the next piece of text on."""
        if piece:
            self._hand(TextDelta(piece))

    def call(
        self, index: int, id_: str | None = None, name: str | None = None, arguments: str = ""
    ) -> None:
        """Tell the next piece of a tool call on."""
        if id_ or name or arguments:
            self._hand(ToolCallDelta(index, id_, name, arguments))

    def sign(self) -> None:
        """Note a sign of life that is no text: reasoning, a refusal."""
        self.pace.heard()

    def _hand(self, delta: Delta) -> None:
        try:
            self._tell(delta)
        except SoftTimeLimitExceeded:
            raise  # the task's time is over wherever it strikes; not the listener's
        except Exception as error:
            self.broke = error
            raise
        self.pace.heard()  # afterwards, so that a slow listener is not the provider's fault

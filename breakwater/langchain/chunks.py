"""
The chunks that a stream yields, and what happens when they become void.

A target may fail in the middle of its answer. The task then goes to the next target, which starts a
new answer. Readers of LangChain's chunks add them up, so a chunk cannot be retracted. A restart
before the first chunk does no harm. A restart after it is an error, unless the model buffers: then
it yields nothing before the answer is complete.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from breakwater.asking.pending import AnswerRestarted
from breakwater.langchain.answers import end_of, piece_of

if TYPE_CHECKING:
    from breakwater.asking.events import Event


class ChunkRelay:
    """
    The chunks of one answer.

    Args:
        buffers: Whether to hold all chunks until the answer is complete.
    """

    def __init__(self, *, buffers: bool) -> None:
        self._buffers = buffers
        self._held: list[AIMessageChunk] = []
        self._has_yielded = False

    def chunks(self, event: "Event") -> Iterator[ChatGenerationChunk]:
        """
        Yield the chunks that are ready after an event.

        Raises:
            AnswerRestarted: The chunks that were already yielded are void.
        """
        if event.type == "restart":
            self._restart(event)
            return
        if event.result is None:
            self._held.append(piece_of(event))
            if self._buffers:
                return
        else:
            self._held.append(end_of(event.result))
        self._has_yielded = True
        for chunk in self._held:
            yield ChatGenerationChunk(message=chunk)
        self._held.clear()

    def _restart(self, event: "Event") -> None:
        if self._has_yielded:
            raise AnswerRestarted(
                f"provider {event.provider!r} failed ({event.error}) after part of its answer was "
                f"yielded; the task was cancelled. Call the model again, or create it with "
                f'on_restart="buffer", which yields nothing before the answer is complete',
                {"provider": event.provider, "error": event.error},
            )
        self._held.clear()

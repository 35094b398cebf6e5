"""
What a stream hands on, and what it does when that turns out to be void.

A target may fail in the middle of its answer; the task then goes to the next one, which begins
anew. LangChain's chunks are added up by whoever reads them and cannot be taken back. So a restart
before the first chunk is no matter; one after it is an error, unless the model was told to buffer:
then nothing is handed on before the answer is whole.
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
        buffers: Whether they are kept until its end.
    """

    def __init__(self, *, buffers: bool) -> None:
        self._buffers = buffers
        self._kept: list[AIMessageChunk] = []
        self._is_any_out = False

    def chunks(self, event: "Event") -> Iterator[ChatGenerationChunk]:
        """
        Return what is to be handed on now.

        Raises:
            AnswerRestarted: What was handed on is void.
        """
        if event.type == "restart":
            self._restart(event)
            return
        self._kept.append(piece_of(event) if event.result is None else end_of(event.result))
        if self._buffers and event.result is None:
            return
        self._is_any_out = True
        for chunk in self._kept:
            yield ChatGenerationChunk(message=chunk)
        self._kept.clear()

    def _restart(self, event: "Event") -> None:
        if self._is_any_out:
            raise AnswerRestarted(
                f"provider {event.provider!r} failed ({event.error}) after part of its answer was "
                f"handed on; the task was cancelled. Ask again, or make the model with "
                f'on_restart="buffer", which hands on nothing before the answer is whole',
                {"provider": event.provider, "error": event.error},
            )
        self._kept.clear()

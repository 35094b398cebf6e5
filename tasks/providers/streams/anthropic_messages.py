"""
A stream of Anthropic's Messages API, put together to what a plain call would have answered.

Its end is `message_stop`. Of what servers do that imitate the API, this is read: events without a
name, blocks whose content comes with their start, indices that begin anywhere, a block that was
never started, counts in any event or in none, events and blocks of unknown types.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from breakwater.errors import GarbledAnswer, ProviderError
from tasks.providers.errors.bodies import is_error
from tasks.providers.round_trip import new_call_id
from tasks.providers.streams.relay import StreamObject, StreamRelay
from tasks.providers.token_counts import whole_number

ReadError = Callable[[Mapping[str, Any]], ProviderError]
"""Reads a body that is an error."""

_NESTED = {"text_delta": "text", "input_json_delta": "tool_use"}
"""Deltas, and the type of the block that each goes on."""


@dataclass(slots=True)
class _Block:
    index: int
    body: dict[str, Any]
    call: int | None = None
    """Position among the tool calls; None: it is none."""
    pieces: list[str] = field(default_factory=list)
    """Its text, or the JSON text of its input."""
    is_held: bool = False
    """Input came with the start: the listener gets the whole at the end."""


class MessageStream:
    """
    One message, as its events make it.

    Args:
        relay: Takes its pieces.
        failed: Reads an error among the events.
    """

    def __init__(self, relay: StreamRelay, read_error: ReadError) -> None:
        self._relay = relay
        self._read_error = read_error
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: list[_Block] = []
        self._reason: object = None
        self._has_ended = False

    def read(self, objects: Iterable[StreamObject]) -> dict[str, Any]:
        """Read the events until the stream ends, and return the message."""
        for name, event in objects:
            self._take(event.get("type") or name, event)
        content = [self._whole(block) for block in sorted(self._blocks, key=lambda b: b.index)]
        return {
            **self._message, "content": content, "usage": self._usage or None,
            "stop_reason": self._reason if self._has_ended else None,
        }  # fmt: skip

    def _take(self, kind: object, event: Mapping[str, Any]) -> None:
        if kind == "error" or is_error(event.get("error")):
            raise self._read_error(event if event.get("error") else {"error": event})
        if kind == "message_start":
            self._begin(_object(event.get("message")))
        elif kind == "content_block_start":
            self._start_block(event.get("index"), _object(event.get("content_block")))
        elif kind == "content_block_delta":
            self._extend(event.get("index"), _object(event.get("delta")))
        elif kind == "message_delta":
            self._reason = _object(event.get("delta")).get("stop_reason") or self._reason
            self._count(event.get("usage"))
            self._relay.keep_alive()
        elif kind == "message_stop":
            self._end()
        elif "stop_reason" in event and "content" in event:  # a message: `stream` was ignored
            self._begin(event)
            self._end()

    def _begin(self, message: Mapping[str, Any]) -> None:
        self._message = {name: message.get(name) for name in ("id", "model")}
        self._reason = message.get("stop_reason") or self._reason
        self._count(message.get("usage"))
        for block in content_blocks(message.get("content") or []):
            self._start_block(None, block)

    def _end(self) -> None:
        self._has_ended = True
        self._relay.mark_complete()

    def _start_block(self, index: object, body: Mapping[str, Any]) -> _Block:
        at = index if type(index) is int else 1 + max((b.index for b in self._blocks), default=-1)
        block = _Block(at, dict(body))
        self._blocks.append(block)
        if body.get("type") == "text":
            self._add_text(block, body.get("text") or "")
        elif body.get("type") == "tool_use":
            block.body["id"] = body.get("id") or new_call_id()  # the same in stream and result
            block.call = sum(each.call is not None for each in self._blocks)
            received = body.get("input")
            block.is_held = bool(received)
            if isinstance(received, str):
                block.pieces.append(received)
            self._relay.send_tool_call(block.call, block.body["id"], body.get("name"))
        return block

    def _extend(self, index: object, delta: Mapping[str, Any]) -> None:
        kind = delta.get("type") or ("text_delta" if "text" in delta else None)
        if kind not in _NESTED:  # thinking, its signature, citations
            self._relay.keep_alive()
            return
        block = self._block_for(index, _NESTED[kind])
        if kind == "text_delta":
            self._add_text(block, delta.get("text") or "")
            return
        piece = delta.get("partial_json") or ""
        piece = piece if isinstance(piece, str) else json.dumps(piece)
        block.pieces.append(piece)
        if block.call is not None and not block.is_held:
            self._relay.send_tool_call(block.call, arguments=piece)

    def _block_for(self, index: object, kind: str) -> _Block:
        """Return the block that a delta goes on; a text that was never started is started now."""
        fitting = [block for block in self._blocks if block.body.get("type") == kind]
        for block in reversed(fitting):
            if block.index == index or type(index) is not int:
                return block
        if kind == "text":
            return self._start_block(index, {"type": "text"})
        raise GarbledAnswer("a piece of a tool call's input belongs to no call")

    def _add_text(self, block: _Block, text: str) -> None:
        block.pieces.append(text)
        self._relay.send_text(text)

    def _count(self, usage: object) -> None:
        """Take over the later counts: each is cumulative, most are left out, and none shrinks."""
        for name, value in _object(usage).items():
            before, after = whole_number(self._usage.get(name)), whole_number(value)
            if before is None or after is None or after >= before:
                self._usage[name] = self._usage.get(name) if value is None else value

    def _whole(self, block: _Block) -> dict[str, Any]:
        text = "".join(block.pieces)
        if block.call is None:
            return {**block.body, "text": text} if block.body.get("type") == "text" else block.body
        received = block.body.get("input")
        input_: object = text or received or {}
        if text and isinstance(received, dict) and received:
            input_ = _joined(received, text)
        if block.is_held:
            self._relay.send_tool_call(
                block.call, arguments=input_ if isinstance(input_, str) else _text(input_)
            )
        return {**block.body, "input": input_}


def content_blocks(content: object) -> list[dict[str, Any]]:
    """
    Return the blocks of a message; some that imitate the API send its text alone.

    Raises:
        TypeError: It is neither blocks nor text.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise TypeError("a content is neither text nor a list of blocks")
    blocks = [block for block in content if isinstance(block, dict)]
    return [block if block.get("type") or "text" not in block else {**block, "type": "text"}
            for block in blocks]  # fmt: skip


def _joined(received: Mapping[str, Any], text: str) -> object:
    """Join input that came with the block's start and what its deltas say; these win."""
    try:
        more = json.loads(text)
    except (ValueError, RecursionError):
        return text  # no JSON: the call is garbled
    return {**received, **more} if isinstance(more, dict) else text


def _text(value: object) -> str:
    return json.dumps(value)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

"""
Merge a stream of Anthropic's Messages API into the message that a plain call would have returned.

The stream ends with `message_stop`. Servers that imitate the API send more shapes, which are read
too: events without a name, blocks whose content comes with their start, indices that begin
anywhere, a block that was never started, counts in any event or in none, events and blocks of
unknown types.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from breakwater.errors import GarbledAnswer
from tasks.providers.errors.bodies import is_error
from tasks.providers.json_values import JsonBody, JsonFields, as_list, as_object
from tasks.providers.round_trip import new_call_id
from tasks.providers.streams.relay import ReadError, StreamObject, StreamRelay
from tasks.providers.token_counts import whole_number

_BLOCK_TYPES = {"text_delta": "text", "input_json_delta": "tool_use"}
"""By type of a delta, the type of the block that it continues."""


@dataclass(slots=True)
class _Block:
    index: int
    body: JsonBody
    call: int | None = None
    """Position among the tool calls; None: the block is not a tool call."""
    pieces: list[str] = field(default_factory=list)
    """Its text, or the JSON text of its input."""
    is_held: bool = False
    """Input came with the start: the listener receives all of it at the end."""


class MessageStream:
    """
    One message, merged from its events.

    Args:
        relay: Receives the pieces.
        read_error: Reads an error among the events.
    """

    def __init__(self, relay: StreamRelay, read_error: ReadError) -> None:
        self._relay = relay
        self._read_error = read_error
        self._message: JsonBody = {}
        self._usage: JsonBody = {}
        self._blocks: list[_Block] = []
        self._reason: object = None
        self._has_ended = False

    def read(self, objects: Iterable[StreamObject]) -> JsonBody:
        """Read the events until the stream ends; return the message."""
        for name, event in objects:
            self._take(event.get("type") or name, event)
        self._blocks.sort(key=lambda block: block.index)
        content = [self._whole(block) for block in self._blocks]
        message = {**self._message, "content": content, "usage": self._usage or None}
        message["stop_reason"] = None
        if self._has_ended:
            message["stop_reason"] = self._reason
        return message

    def _take(self, kind: object, event: JsonBody) -> None:
        if kind == "error" or is_error(event.get("error")):
            if not event.get("error"):
                event = {"error": event}
            raise self._read_error(event)
        if kind == "message_start":
            self._begin(as_object(event.get("message")))
        elif kind == "content_block_start":
            self._start_block(event.get("index"), as_object(event.get("content_block")))
        elif kind == "content_block_delta":
            self._extend(event.get("index"), as_object(event.get("delta")))
        elif kind == "message_delta":
            self._reason = as_object(event.get("delta")).get("stop_reason") or self._reason
            self._count(event.get("usage"))
            self._relay.keep_alive()
        elif kind == "message_stop":
            self._end()
        elif "stop_reason" in event and "content" in event:  # a message: `stream` was ignored
            self._begin(event)
            self._end()

    def _begin(self, message: JsonFields) -> None:
        self._message = {name: message.get(name) for name in ("id", "model")}
        self._reason = message.get("stop_reason") or self._reason
        self._count(message.get("usage"))
        for block in content_blocks(message.get("content") or []):
            self._start_block(None, block)

    def _end(self) -> None:
        self._has_ended = True
        self._relay.mark_complete()

    def _start_block(self, index: object, body: JsonFields) -> _Block:
        if type(index) is not int:
            index = 1 + max((block.index for block in self._blocks), default=-1)
        block = _Block(index, dict(body))
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

    def _extend(self, index: object, delta: JsonFields) -> None:
        kind = delta.get("type")
        if not kind and "text" in delta:
            kind = "text_delta"
        if kind not in _BLOCK_TYPES:  # thinking, its signature, citations
            self._relay.keep_alive()
            return
        block = self._block_for(index, _BLOCK_TYPES[kind])
        if kind == "text_delta":
            self._add_text(block, delta.get("text") or "")
            return
        piece = _as_json_text(delta.get("partial_json") or "")
        block.pieces.append(piece)
        if block.call is not None and not block.is_held:
            self._relay.send_tool_call(block.call, arguments=piece)

    def _block_for(self, index: object, kind: str) -> _Block:
        """Return the block that a delta continues; start a text that was never started."""
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
        """Keep the later counts: each is cumulative, most are left out, and none shrinks."""
        for name, value in as_object(usage).items():
            before, after = whole_number(self._usage.get(name)), whole_number(value)
            if before is None or after is None or after >= before:
                self._usage.setdefault(name, None)
                if value is not None:
                    self._usage[name] = value

    def _whole(self, block: _Block) -> JsonBody:
        """Return a block as a message has it."""
        text = "".join(block.pieces)
        if block.call is None:
            if block.body.get("type") == "text":
                return {**block.body, "text": text}
            return block.body
        received = block.body.get("input")
        input_: object = text or received or {}
        if text and isinstance(received, dict) and received:
            input_ = _joined(received, text)
        if block.is_held:
            self._relay.send_tool_call(block.call, arguments=_as_json_text(input_))
        return {**block.body, "input": input_}


def content_blocks(content: object) -> list[JsonBody]:
    """
    Return the blocks of a message; some imitators of the API send its text alone.

    Raises:
        TypeError: It is neither blocks nor text.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise TypeError("a content is neither text nor a list of blocks")
    blocks = []
    for block in as_list(content):
        if isinstance(block, dict):
            if not block.get("type") and "text" in block:
                block = {**block, "type": "text"}  # noqa: PLW2901 - with the type that it lacks
            blocks.append(block)
    return blocks


def _joined(received: JsonBody, text: str) -> object:
    """Join the input that came with a block's start with its deltas; the deltas win."""
    try:
        more = json.loads(text)
    except (ValueError, RecursionError):
        return text  # not JSON: the call is garbled
    if isinstance(more, dict):
        return {**received, **more}
    return text


def _as_json_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value)

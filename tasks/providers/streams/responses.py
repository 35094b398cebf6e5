"""
A stream of OpenAI's Responses API, put together to what a plain call would have answered.

Its end is `response.completed`, `response.incomplete` or `response.failed`, which brings the whole
response once more. Servers that imitate the API leave parts out: the output in the last event, or
everything but the last event; what the other events brought stands in for it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from breakwater.errors import ProviderError
from tasks.providers.round_trip import new_call_id
from tasks.providers.streams.relay import StreamObject, StreamRelay

ReadError = Callable[[Mapping[str, Any]], ProviderError]
"""Reads a body that is an error."""

_ENDS = {
    "response.completed": "completed", "response.done": "completed",
    "response.incomplete": "incomplete", "response.failed": "failed",
    "response.cancelled": "cancelled",
}  # fmt: skip
"""Terminal events, and the status of a response that has none."""


@dataclass(slots=True)
class _Item:
    """An item of the output, so far."""

    body: dict[str, Any] = field(default_factory=dict)
    texts: dict[object, str] = field(default_factory=dict)
    """By part."""
    refusals: dict[object, str] = field(default_factory=dict)
    arguments: str = ""
    call: int | None = None
    """Position among the tool calls; None: it is none."""

    def as_item(self) -> dict[str, Any]:
        """Return the item as a response has it."""
        if self.call is not None:
            arguments = self.arguments or self.body.get("arguments") or ""
            return {**self.body, "type": "function_call", "arguments": arguments}
        parts = [{"type": "output_text", "text": text} for text in self.texts.values()]
        refused = [{"type": "refusal", "refusal": text} for text in self.refusals.values()]
        if not parts and not refused:
            return self.body
        return {**self.body, "type": "message", "content": [*parts, *refused]}


class ResponseStream:
    """
    One response, as its events make it.

    Args:
        relay: Takes its pieces.
        failed: Reads an error among the events.
    """

    def __init__(self, relay: StreamRelay, read_error: ReadError) -> None:
        self._relay = relay
        self._read_error = read_error
        self._items: dict[object, _Item] = {}
        self._response: dict[str, Any] = {}
        self._status: str | None = None
        self._call_ids: list[str] = []

    def read(self, objects: Iterable[StreamObject]) -> dict[str, Any]:
        """Read the events until the stream ends, and return the response."""
        for name, event in objects:
            self._take(str(event.get("type") or name), event)
        output = self._response.get("output")
        if not _has_content(output):
            output = [item.as_item() for item in self._items.values()]
        status = self._response.get("status") or self._status if self._status else None
        return {**self._response, "output": list(self._output_items(output)), "status": status}

    def _take(self, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "error":  # its code is its own, or in an object
            raise self._read_error(
                event if isinstance(event.get("error"), dict) else {"error": event}
            )
        if kind.startswith("response.output_text."):
            self._add_text(kind, event)
        elif kind.startswith("response.refusal."):
            self._add_refusal(kind, event)
        elif kind.startswith("response.function_call_arguments."):
            self._add_arguments(kind, event)
        elif kind.startswith("response.output_item."):
            self._add_item(event)
        elif kind in _ENDS:
            self._end(event.get("response"), _ENDS[kind])
        elif not kind:
            self._take_plain(event)
        elif kind in {"response.created", "response.in_progress"}:
            self._response = {**_object(event.get("response")), "status": None, "error": None}
        elif kind.endswith(".delta"):  # reasoning
            self._relay.keep_alive()

    def _take_plain(self, body: Mapping[str, Any]) -> None:
        """Take what is no event: an answer of a server that ignored `stream`, or an error."""
        if body.get("error"):
            raise self._read_error(body)
        if "output" in body:
            self._end(body, "")

    def _item(self, event: Mapping[str, Any]) -> _Item:
        at = event.get("output_index")
        key = at if type(at) is int else str(event.get("item_id") or "")
        return self._items.setdefault(key, _Item())

    def _add_text(self, kind: str, event: Mapping[str, Any]) -> None:
        texts, part = self._item(event).texts, str(event.get("content_index") or 0)
        if kind.endswith(".delta"):
            piece = _string(event.get("delta"))
            texts[part] = texts.get(part, "") + piece
        elif kind.endswith(".done"):
            text = _string(event.get("text"))
            piece = text[len(texts.get(part, "")) :]
            texts[part] = text or texts.get(part, "")
        else:  # annotations
            return
        self._relay.send_text(piece)

    def _add_refusal(self, kind: str, event: Mapping[str, Any]) -> None:
        refusals, part = self._item(event).refusals, str(event.get("content_index") or 0)
        piece = _string(event.get("delta")) or _string(event.get("refusal"))
        refusals[part] = refusals.get(part, "") + piece if kind.endswith(".delta") else piece
        self._relay.keep_alive()

    def _add_item(self, event: Mapping[str, Any]) -> None:
        body, item = _object(event.get("item")), self._item(event)
        item.body = {**item.body, **body}
        if body.get("type") != "function_call":
            return
        self._begin_call(item)
        arguments = _string(body.get("arguments"))
        self._extend_call(item, arguments[len(item.arguments) :])

    def _add_arguments(self, kind: str, event: Mapping[str, Any]) -> None:
        item = self._item(event)
        self._begin_call(item)
        if kind.endswith(".delta"):
            self._extend_call(item, _string(event.get("delta")))
        elif kind.endswith(".done"):
            self._extend_call(item, _string(event.get("arguments"))[len(item.arguments) :])

    def _begin_call(self, item: _Item) -> None:
        if item.call is None:
            item.call = len(self._call_ids)
            self._call_ids.append(_id_of(item.body))
            self._relay.send_tool_call(item.call, self._call_ids[-1], item.body.get("name"))

    def _extend_call(self, item: _Item, piece: str) -> None:
        item.arguments += piece
        if item.call is not None:
            self._relay.send_tool_call(item.call, arguments=piece)

    def _end(self, response: object, status: str) -> None:
        if self._status == "failed":  # no later event takes that back
            return
        fields = {name: value for name, value in self._response.items() if value is not None}
        self._response = {**fields, **_object(response)}
        self._status = self._response.get("status") or status or None
        self._relay.mark_complete()

    def _output_items(self, output: object) -> Iterator[Mapping[str, Any]]:
        """Yield the items of an output, after what only the last event brought was told."""
        text, calls = "", 0
        for item in output if isinstance(output, list) else ():
            body = _object(item)
            text += "".join(
                _string(part.get("text")) for part in content_parts(body.get("content"))
            )
            if body.get("type") == "function_call":
                body = {**body, "call_id": self._id_of_call(calls, body)}
                calls += 1
            yield body
        self._relay.send_missing_text(text)

    def _id_of_call(self, number: int, body: Mapping[str, Any]) -> str:
        """Return the id that was told of a call; one that was not told yet is told now."""
        if number < len(self._call_ids):
            return self._call_ids[number]
        self._call_ids.append(_id_of(body))
        arguments = body.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments)
        self._relay.send_tool_call(number, self._call_ids[-1], body.get("name"), arguments)
        return self._call_ids[-1]


def content_parts(content: object) -> list[Mapping[str, Any]]:
    """Return the parts of a message; some that imitate the API send its text alone."""
    if isinstance(content, str):
        return [{"type": "output_text", "text": content}]
    parts = [_object(part) for part in content] if isinstance(content, list) else []
    return [
        part if part.get("type") not in (None, "text") else {**part, "type": "output_text"}
        for part in parts
    ]


def _id_of(call: Mapping[str, Any]) -> str:
    return _string(call.get("call_id")) or _string(call.get("id")) or new_call_id()


def _has_content(output: object) -> bool:
    """Tell an output with content from one that the server left empty."""
    items = [_object(item) for item in output] if isinstance(output, list) else []
    return any(item.get("content") or item.get("type") == "function_call" for item in items)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""

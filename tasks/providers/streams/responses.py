"""
Merge a stream of OpenAI's Responses API into the response that a plain call would have returned.

The stream ends with `response.completed`, `response.incomplete` or `response.failed`, which holds
the whole response once more. Servers that imitate the API leave parts out: the output in the last
event, or everything but the last event. The other events then supply what is missing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from breakwater.errors import ProviderError
from tasks.providers.json_values import JsonBody, as_list, as_object, as_text
from tasks.providers.round_trip import new_call_id
from tasks.providers.streams.relay import ReadError, StreamObject, StreamRelay

_ENDS = {
    "response.completed": "completed", "response.done": "completed",
    "response.incomplete": "incomplete", "response.failed": "failed",
    "response.cancelled": "cancelled",
}  # fmt: skip
"""Terminal events, and the status of a response that has none."""


@dataclass(slots=True)
class _Item:
    """An item of the output, as far as it has come."""

    body: JsonBody = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """By part."""
    refusals: dict[str, str] = field(default_factory=dict)
    arguments: str = ""
    call: int | None = None
    """Position among the tool calls; None: the item is not a tool call."""

    def as_item(self) -> JsonBody:
        """Return the item as a response has it."""
        if self.call is not None:
            arguments = self.arguments or self.body.get("arguments") or ""
            return {**self.body, "type": "function_call", "arguments": arguments}
        parts = [{"type": "output_text", "text": text} for text in self.texts.values()]
        parts += [{"type": "refusal", "refusal": text} for text in self.refusals.values()]
        if not parts:
            return self.body
        return {**self.body, "type": "message", "content": parts}


class ResponseStream:
    """
    One response, merged from its events.

    Args:
        relay: Receives the pieces.
        read_error: Reads an error among the events.
    """

    def __init__(self, relay: StreamRelay, read_error: ReadError) -> None:
        self._relay = relay
        self._read_error = read_error
        self._items: dict[object, _Item] = {}
        self._response: JsonBody = {}
        self._status: str | None = None
        self._call_ids: list[str] = []

    def read(self, objects: Iterable[StreamObject]) -> JsonBody:
        """Read the events until the stream ends; return the response."""
        for name, event in objects:
            self._take(str(event.get("type") or name), event)
        output: object = self._response.get("output")
        if not _has_content(output):
            output = [item.as_item() for item in self._items.values()]
        status = None
        if self._status:
            status = self._response.get("status") or self._status
        return {**self._response, "output": list(self._output_items(output)), "status": status}

    def _take(self, kind: str, event: JsonBody) -> None:
        if kind == "error":
            raise self._error_of(event)
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
            self._response = {**as_object(event.get("response")), "status": None, "error": None}
        elif kind.endswith(".delta"):  # reasoning
            self._relay.keep_alive()

    def _error_of(self, event: JsonBody) -> ProviderError:
        """Read an error event, whose code is in it, or in an object in it."""
        if isinstance(event.get("error"), dict):
            return self._read_error(event)
        return self._read_error({"error": event})

    def _take_plain(self, body: JsonBody) -> None:
        """Read a body that is not an event: an answer of a server without streams, or an error."""
        if body.get("error"):
            raise self._read_error(body)
        if "output" in body:
            self._end(body, "")

    def _item(self, event: JsonBody) -> _Item:
        index = event.get("output_index")
        key: object = str(event.get("item_id") or "")
        if type(index) is int:
            key = index
        return self._items.setdefault(key, _Item())

    def _add_text(self, kind: str, event: JsonBody) -> None:
        texts, part = self._item(event).texts, str(event.get("content_index") or 0)
        before = texts.get(part, "")
        if kind.endswith(".delta"):
            piece = as_text(event.get("delta"))
            texts[part] = before + piece
        elif kind.endswith(".done"):
            text = as_text(event.get("text"))
            piece = text[len(before) :]
            texts[part] = text or before
        else:  # annotations
            return
        self._relay.send_text(piece)

    def _add_refusal(self, kind: str, event: JsonBody) -> None:
        refusals, part = self._item(event).refusals, str(event.get("content_index") or 0)
        piece = as_text(event.get("delta")) or as_text(event.get("refusal"))
        if kind.endswith(".delta"):
            piece = refusals.get(part, "") + piece
        refusals[part] = piece
        self._relay.keep_alive()

    def _add_item(self, event: JsonBody) -> None:
        body, item = as_object(event.get("item")), self._item(event)
        item.body = {**item.body, **body}
        if body.get("type") != "function_call":
            return
        self._begin_call(item)
        arguments = as_text(body.get("arguments"))
        self._extend_call(item, arguments[len(item.arguments) :])

    def _add_arguments(self, kind: str, event: JsonBody) -> None:
        item = self._item(event)
        self._begin_call(item)
        if kind.endswith(".delta"):
            self._extend_call(item, as_text(event.get("delta")))
        elif kind.endswith(".done"):
            self._extend_call(item, as_text(event.get("arguments"))[len(item.arguments) :])

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
        if self._status == "failed":  # no later event takes a failure back
            return
        fields = {name: value for name, value in self._response.items() if value is not None}
        self._response = {**fields, **as_object(response)}
        self._status = self._response.get("status") or status or None
        self._relay.mark_complete()

    def _output_items(self, output: object) -> Iterator[Mapping[str, object]]:
        """Yield the items of an output; forward what only the last event had."""
        text, calls = "", 0
        for item in as_list(output):
            body: Mapping[str, object] = as_object(item)
            for part in content_parts(body.get("content")):
                text += as_text(part.get("text"))
            if body.get("type") == "function_call":
                body = {**body, "call_id": self._id_of_call(calls, body)}
                calls += 1
            yield body
        self._relay.send_missing_text(text)

    def _id_of_call(self, number: int, body: Mapping[str, object]) -> str:
        """Return the id that a call was forwarded with; forward a call that was not yet."""
        if number < len(self._call_ids):
            return self._call_ids[number]
        self._call_ids.append(_id_of(body))
        arguments = body.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments)
        name = as_text(body.get("name"))
        self._relay.send_tool_call(number, self._call_ids[-1], name, arguments)
        return self._call_ids[-1]


def content_parts(content: object) -> list[JsonBody]:
    """Return the parts of a message; some imitators of the API send its text alone."""
    if isinstance(content, str):
        return [{"type": "output_text", "text": content}]
    parts: list[JsonBody] = []
    for part in map(as_object, as_list(content)):
        kind = part.get("type")
        if kind in (None, "text"):
            kind = "output_text"
        parts.append({**part, "type": kind})
    return parts


def _id_of(call: Mapping[str, object]) -> str:
    return as_text(call.get("call_id")) or as_text(call.get("id")) or new_call_id()


def _has_content(output: object) -> bool:
    """Return whether an output has content; some servers leave it empty."""
    items = map(as_object, as_list(output))
    return any(item.get("content") or item.get("type") == "function_call" for item in items)

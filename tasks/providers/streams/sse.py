"""
Server-Sent Events from bytes, by the rules of WHATWG HTML 9.2.6.

The SDKs' own readers do not follow the rules to the end: google-genai takes a comment or an event's
name for broken JSON, openai a comment behind an `id:` for an event. What real servers send beside
the standard is read, too:

- The last event counts although no blank line ends it; `data: [DONE]` often has none.
- A field `error:` with JSON, as older llama.cpp servers write it, is an event with that error.
- Data behind data that is JSON by itself is the next event: some servers leave out the empty lines.
- A line that begins with `{` or `[` where an event could begin is no field but JSON: one object per
  line (NDJSON), or one document to the end, as servers send that ignore `stream: true`.
"""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event."""

    name: str
    """Of its `event:` field; empty if it has none."""
    data: str


class NotAStreamError(ValueError):
    """Lines came, and none was a field, a comment or JSON: a page of HTML, say."""


def events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """
    Yield the events of a stream.

    Args:
        chunks: The body, cut anywhere.

    Raises:
        NotAStreamError: The body ended, had no event, and had lines that are none of a stream's.
    """
    lines = _lines(chunks)
    pending = _Pending()
    for line in lines:
        if not line:
            yield from pending.pop()
        elif line[:1] in {b"{", b"["} and not pending.data:
            pending.has_events = True
            yield _event("", [line] if _is_json(line) else [line, *lines])
        else:
            yield from pending.add(line)
    yield from pending.pop()
    if pending.has_other_lines and not pending.has_events:
        raise NotAStreamError("the body is not a stream of events")


class _Pending:
    """The event whose fields are coming in."""

    def __init__(self) -> None:
        self.name = ""
        self.data: list[bytes] = []
        self.has_events = self.has_other_lines = False

    def add(self, line: bytes) -> Iterator[Event]:
        """Take a field; yield the event before it, if that was whole without an empty line."""
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            if len(self.data) == 1 and self.data[0][:1] == b"{" and _is_json(self.data[0]):
                yield from self.pop()
            self.data.append(value)
        elif field == b"error" and value.startswith(b"{"):
            self.data.append(b'{"error": ' + value + b"}")
        elif field == b"event":
            self.name = value.decode(errors="replace")
        elif field not in {b"", b"id", b"retry"}:  # without a name it is a comment
            self.has_other_lines = True

    def pop(self) -> Iterator[Event]:
        """Yield the event, if it has data, and begin the next."""
        name, data = self.name, self.data
        self.name, self.data = "", []
        if data:
            self.has_events = True
            yield _event(name, data)


def _event(name: str, data: list[bytes]) -> Event:
    return Event(name, b"\n".join(data).decode(errors="replace"))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Split at LF, CR or CRLF, and at nothing else; U+2028 is part of a line."""
    begun: list[bytes] = []
    follows_cr = False
    is_first = True
    for chunk in chunks:
        piece = chunk[1:] if follows_cr and chunk.startswith(b"\n") else chunk
        follows_cr = follows_cr and not chunk
        if not piece:
            continue
        follows_cr = piece.endswith(b"\r")
        complete = piece.splitlines()
        rest = b"" if piece.endswith((b"\r", b"\n")) else complete.pop()
        for line in complete:
            if begun:
                line = b"".join([*begun, line])  # noqa: PLW2901 - what came of it before
                begun.clear()
            yield line.removeprefix(BOM) if is_first else line
            is_first = False
        if rest:
            begun.append(rest)
    if begun:
        line = b"".join(begun)
        yield line.removeprefix(BOM) if is_first else line

"""
Server-Sent Events from bytes, by the rules of WHATWG HTML 9.2.6.

The SDKs' own readers do not follow all of the rules: google-genai takes a comment or an event's
name for broken JSON, openai a comment behind an `id:` for an event. Real servers also send shapes
outside the standard, which are read too:

- The last event counts although no blank line ends it; `data: [DONE]` often has none.
- A field `error:` with JSON, which older llama.cpp servers send, is an event with that error.
- Data behind data that is JSON by itself is the next event: some servers omit the empty lines.
- A line that begins with `{` or `[` where an event could begin is not a field but JSON: one object
  per line (NDJSON), or one document to the end, as servers send that ignore `stream: true`.
"""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event."""

    name: str
    """The value of its `event:` field; empty if it has none."""
    data: str


class NotAStreamError(ValueError):
    """The body has lines, but not a field, a comment or JSON; a page of HTML, for example."""


def events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """
    Yield the events of a stream.

    Args:
        chunks: The body, cut anywhere.

    Raises:
        NotAStreamError: The body ended without an event, and had lines that no stream has.
    """
    lines = _lines(chunks)
    pending = _Pending()
    for line in lines:
        if not line:
            yield from pending.pop()
        elif line[:1] in {b"{", b"["} and not pending.data:
            pending.has_events = True
            document = [line]
            if not _is_json(line):
                document += lines  # all that follows
            yield _event("", document)
        else:
            yield from pending.add(line)
    yield from pending.pop()
    if pending.has_other_lines and not pending.has_events:
        raise NotAStreamError("the body is not a stream of events")


class _Pending:
    """The event whose fields are being read."""

    def __init__(self) -> None:
        self.name = ""
        self.data: list[bytes] = []
        self.has_events = self.has_other_lines = False

    def add(self, line: bytes) -> Iterator[Event]:
        """Add a field; yield the event before it, if that is complete without an empty line."""
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
    """Yield the lines of a stream, without the byte order mark before the first."""
    lines = _split(chunks)
    for first in lines:
        yield first.removeprefix(BOM)
        yield from lines


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Split at LF, CR or CRLF, and at nothing else; U+2028 is part of a line."""
    begun: list[bytes] = []
    follows_cr = False
    for chunk in chunks:
        if not chunk:
            continue
        piece = chunk
        if follows_cr:
            piece = chunk.removeprefix(b"\n")
            follows_cr = False
        if not piece:
            continue
        follows_cr = piece.endswith(b"\r")
        complete = piece.splitlines()
        rest = b""
        if not piece.endswith((b"\r", b"\n")):
            rest = complete.pop()
        for line in complete:
            if begun:
                line = b"".join([*begun, line])  # noqa: PLW2901 - with its beginning
                begun.clear()
            yield line
        if rest:
            begun.append(rest)
    if begun:
        yield b"".join(begun)

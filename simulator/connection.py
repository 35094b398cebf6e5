"""
The part of HTTP/1.1 (RFC 9112) that the vendors' SDKs use, and ways to break it on purpose.

One `Connection` is one TCP connection: it reads requests one after the other, gives each to a
coroutine as soon as its head has arrived, and cancels that coroutine when the client goes away.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

MAX_HEAD_BYTES = 65_536
JSON = {"content-type": "application/json"}


@dataclass(slots=True)
class Request:
    """One request; `body` is a future, so that a fault can strike before the body is read."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: asyncio.Future[bytes]


Handler = Callable[[Request, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """
    One client's connection.

    Args:
        handle: Answers one request through the methods below.
        opened: The set that holds this connection while it is open.
    """

    def __init__(self, handle: Handler, opened: set["Connection"]) -> None:
        self._handle = handle
        self._opened = opened
        self._buffer = bytearray()
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport (asyncio calls this)."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - tells mypy what TCP gives
        self._transport = transport
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the answer, since the client is gone (asyncio calls this)."""
        self._opened.discard(self)
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Process received bytes (asyncio calls this)."""
        self._buffer += data
        try:
            self._advance()
        except ValueError:
            self.send(400, {**JSON, "connection": "close"}, b'{"error":"not an HTTP request"}')
            self._transport.close()

    def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer."""
        self.send_head(status, {**headers, "content-length": str(len(body))}, body)

    def send_head(self, status: int, headers: Mapping[str, str], first: bytes = b"") -> None:
        """Send status line and headers, with the first bytes of the body in the same packet."""
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:  # 529, and other non-standard numbers of the vendors
            phrase = "Overloaded"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._transport.write(
            f"HTTP/1.1 {status} {phrase}\r\n{lines}\r\n".encode("latin-1") + first
        )

    def send_raw(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self._transport.write(data)

    def close(self) -> None:
        """Close once everything is sent (FIN)."""
        self._transport.close()

    def reset(self) -> None:
        """Reset the connection: the client receives RST, not an end of file."""
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _advance(self) -> None:
        if self._request is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise ValueError("head too long")
                return
            self._request = _parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._request.headers.get("expect", "").lower() == "100-continue":
                self.send_raw(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._task = asyncio.get_running_loop().create_task(self._run(self._request))
        if not self._request.body.done():
            body = _take_body(self._buffer, self._request.headers)
            if body is not None:
                self._request.body.set_result(body)

    async def _run(self, request: Request) -> None:
        try:
            await self._handle(request, self)
        except Exception:
            self._transport.abort()  # a bug of this program must not look like a hanging vendor
            raise
        await request.body
        self._request = self._task = None
        if request.headers.get("connection", "").lower() == "close":
            self._transport.close()
        elif self._buffer and not self._transport.is_closing():
            self.data_received(b"")  # the next request arrived together with the last one


def _parse_head(head: bytes) -> Request:
    line, *fields = head.decode("latin-1").split("\r\n")
    method, target, _version = line.split(" ")
    headers = {}
    for item in fields:
        name, _, value = item.partition(":")
        headers[name.lower()] = value.strip()
    parts = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    body = asyncio.get_running_loop().create_future()
    return Request(method, unquote(parts.path), query, headers, body)


def _take_body(buffer: bytearray, headers: Mapping[str, str]) -> bytes | None:
    """Remove the body from the buffer, or return None until all of it has arrived."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _take_chunks(buffer)
    length = int(headers.get("content-length", 0))
    if len(buffer) < length:
        return None
    body = bytes(buffer[:length])
    del buffer[:length]
    return body


def _take_chunks(buffer: bytearray) -> bytes | None:
    body, at = b"", 0
    while (line_end := buffer.find(b"\r\n", at)) >= 0:
        size = int(bytes(buffer[at:line_end]).partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if len(buffer) < at:
            return None
        if size == 0:
            del buffer[:at]
            return body
        body += buffer[at - 2 - size : at - 2]
    return None


def json_bytes(value: object) -> bytes:
    """Return a value as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()

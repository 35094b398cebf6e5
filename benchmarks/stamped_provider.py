"""
A provider whose every token is the time at which it was sent: for `benchmarks.streaming`.

It speaks Chat Completions: `python -m benchmarks.stamped_provider TOKENS SECONDS_BETWEEN_THEM`;
prints its port.
"""

import asyncio
import json
import sys
import time
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n"


class Provider:
    """Answer each request on a connection."""

    def __init__(self, tokens: int, every_s: float) -> None:
        self.tokens = tokens
        self.every_s = every_s

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it closes."""
        while head := await head_of(reader):
            size = int(head.partition("content-length:")[2].partition("\r\n")[0])
            asked = json.loads(await reader.readexactly(size))
            await asyncio.sleep(self.every_s)
            await (self._stream if asked.get("stream") else self._plain)(writer)

    async def _plain(self, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.every_s * self.tokens)
        message = {"role": "assistant", "content": "0" * 20 * self.tokens}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = json.dumps({**answer("chat.completion", choice), "usage": usage}).encode()
        writer.write(HEAD % (b"application/json", b"content-length: %d" % len(body)) + body)

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD % (b"text/event-stream", b"transfer-encoding: chunked"))
        for _ in range(self.tokens):
            _send(writer, _chunk({"content": f"{time.time_ns()} "}))
            await asyncio.sleep(self.every_s)
        _send(writer, _chunk({}, "stop") + b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")


async def head_of(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return ""


def answer(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c", "object": kind, "created": 1, "model": "m", "choices": [choice]}


def _chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps(answer("chat.completion.chunk", choice)).encode() + b"\n\n"


def _send(writer: asyncio.StreamWriter, event: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(event), event))


async def main() -> None:
    """Serve until killed."""
    provider = Provider(int(sys.argv[1]), float(sys.argv[2]))
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

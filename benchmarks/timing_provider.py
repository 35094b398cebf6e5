"""
A provider that tells how long a prompt took to reach it: for `benchmarks.latency`.

A prompt is the time at which it was enqueued, in ns of this host's clock. It speaks Chat
Completions; prints its port, then the model and the ms of each request.
"""

import asyncio
import json
import time

from benchmarks.stamped_provider import HEAD, answer, head_of


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection until it closes."""
    while head := await head_of(reader):
        hit_ns = time.time_ns()
        size = int(head.partition("content-length:")[2].partition("\r\n")[0])
        asked = json.loads(await reader.readexactly(size))
        sent_ns = int(asked["messages"][-1]["content"])
        choice = {"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        payload = answer("chat.completion", {"index": 0, **choice})
        body = json.dumps({**payload, "usage": usage}).encode()
        writer.write(HEAD % (b"application/json", b"content-length: %d" % len(body)) + body)
        print(asked["model"], (hit_ns - sent_ns) / 1e6, flush=True)


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

"""How a composed reply reaches the client: whole, paced, or broken on purpose."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from simulator.connection import Connection

LINGER_S = 0.05
"""Lets half an answer arrive before the reset, which discards what is not sent yet."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send; a plain body is one part, a stream has one part an event."""

    status: int
    headers: Mapping[str, str]
    parts: list[bytes]

    @classmethod
    def plain(cls, status: int, headers: Mapping[str, str], body: bytes) -> "Reply":
        """Build the reply that has a length."""
        return cls(status, {**headers, "content-length": str(len(body))}, [body])

    @classmethod
    def stream(cls, headers: Mapping[str, str], events: list[bytes]) -> "Reply":
        """Build the reply that comes in chunks."""
        kind = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
        return cls(200, {**headers, **kind}, [*chunks, b"0\r\n\r\n"])


async def deliver(
    reply: Reply, kind: str | None, byte_interval_s: float, part_interval_s: float, to: Connection
) -> None:
    """
    Send a reply, or break it as the fault's `kind` says.

    Args:
        reply: What to send.
        kind: One of `faults.DELIVERIES`; all others are sent whole.
        byte_interval_s: Between the bytes of a trickle.
        part_interval_s: Between the events of a stream.
        to: The client's connection.
    """
    whole = b"".join(reply.parts)
    match kind:
        case "hang":
            await asyncio.get_running_loop().create_future()
        case "reset":
            to.reset()
        case "reset_midway" | "truncate":
            to.send_head(reply.status, reply.headers, whole[: len(whole) // 2])
            await asyncio.sleep(LINGER_S)
            (to.reset if kind == "reset_midway" else to.close)()
        case "trickle":
            await _pace(
                reply, (whole[at : at + 1] for at in range(len(whole))), byte_interval_s, to
            )
        case _ if part_interval_s and len(reply.parts) > 1:
            await _pace(reply, reply.parts, part_interval_s, to)
        case _:
            to.send_head(reply.status, reply.headers, whole)


async def _pace(reply: Reply, parts: Iterable[bytes], interval_s: float, to: Connection) -> None:
    to.send_head(reply.status, reply.headers)
    for part in parts:
        await asyncio.sleep(interval_s)
        to.send_raw(part)

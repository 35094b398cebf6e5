"""Send a reply to the client: whole, at a pace, or broken on purpose."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from simulator.connection import Connection

LINGER_S = 0.05
"""Time for half an answer to arrive before the reset, which discards unsent bytes."""
PING_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes to send; a plain body is one part, a stream has one part for each event."""

    status: int
    headers: Mapping[str, str]
    parts: list[bytes]
    opening: int = 0
    """The number of parts before the first token."""
    ping: bytes = b""
    """The bytes that keep a silent stream alive; empty if the vendor has none."""

    @classmethod
    def plain(cls, status: int, headers: Mapping[str, str], body: bytes) -> "Reply":
        """Build a reply with a Content-Length."""
        return cls(status, {**headers, "content-length": str(len(body))}, [body])

    @classmethod
    def stream(
        cls, headers: Mapping[str, str], events: list[bytes], opening: int, ping: bytes
    ) -> "Reply":
        """Build a reply in chunks."""
        kind = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        chunks = [_chunk(event) for event in events]
        return cls(200, {**headers, **kind}, [*chunks, b"0\r\n\r\n"], opening, _chunk(ping))

    @property
    def half(self) -> "Reply":
        """The first half of the reply: half of the events, or half of the body."""
        if len(self.parts) > 1:
            return replace(self, parts=self.parts[: (len(self.parts) - 1) // 2])
        return replace(self, parts=[self.parts[0][: len(self.parts[0]) // 2]])


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of a reply."""

    byte_interval_s: float
    """The time between the bytes of a trickle."""
    interval_s: float = 0.0
    """The time between the events of a stream."""
    first_token_s: float = 0.0
    """The time from the opening of a stream to the first event after it."""


async def deliver(reply: Reply, kind: str | None, pace: Pace, to: Connection) -> None:
    """
    Send a reply, or break it as the fault's `kind` says.

    Args:
        reply: The reply to send.
        kind: One of `faults.DELIVERIES`; all others are sent whole.
        pace: How fast.
        to: The client's connection.
    """
    whole = b"".join(reply.parts)
    match kind:
        case "hang":
            await _silence()
        case "reset":
            to.reset()
        case "reset_midway" | "truncate":
            to.send_head(reply.status, reply.headers, whole[: len(whole) // 2])
            await asyncio.sleep(LINGER_S)
            (to.reset if kind == "reset_midway" else to.close)()
        case "trickle":
            to.send_head(reply.status, reply.headers)
            for at in range(len(whole)):
                await asyncio.sleep(pace.byte_interval_s)
                to.send_raw(whole[at : at + 1])
        case "stall" | "stall_pings":
            await _send(reply.half, pace, to)
            await _silence(reply.ping if kind == "stall_pings" else b"", to)
        case _:
            await _send(reply, pace, to)


async def _send(reply: Reply, pace: Pace, to: Connection) -> None:
    """Send a reply as a whole, or its events at their pace."""
    if not reply.ping or not (pace.interval_s or pace.first_token_s):
        to.send_head(reply.status, reply.headers, b"".join(reply.parts))
        return
    to.send_head(reply.status, reply.headers)
    for at, part in enumerate(reply.parts):
        if at == reply.opening:
            await asyncio.sleep(pace.first_token_s or pace.interval_s)
        elif at > reply.opening or not pace.first_token_s:
            await asyncio.sleep(pace.interval_s)
        to.send_raw(part)


async def _silence(ping: bytes = b"", to: Connection | None = None) -> None:
    """Stay silent until the client leaves, or send pings alone."""
    while ping and to:
        await asyncio.sleep(PING_INTERVAL_S)
        to.send_raw(ping)
    await asyncio.get_running_loop().create_future()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

"""
A TCP proxy before a Redis-protocol server that does to commands and replies what networks do.

It cuts both streams into RESP messages (https://redis.io/docs/latest/develop/reference/protocol-spec/,
versions 2 and 3) and matches replies to commands one to one, pipelines and blocking commands
included. After SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE or MONITOR a connection has no such order any
more: what comes then passes, unless the whole way is gone (`refuse`, `black_hole`, `reset`).
"""

import asyncio
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

HOST = "127.0.0.1"
PIECE = 1 << 18
HANDSHAKE = {"AUTH", "CLIENT", "HELLO", "SELECT"}
STREAMS = {"MONITOR", "PSUBSCRIBE", "SSUBSCRIBE", "SUBSCRIBE"}

Kind = Literal["none", "answer", "reset", "cut before", "cut after", "lose", "delay", "drip"]
Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FaultProxy:
    """
    Relay to a port of this host; a context manager, whose methods take effect before they return.

    Faults of commands strike the next `n` of them (None: all until `heal`) that have the name
    `of` and the bytes `match` in them; without either, all but those of a connection's handshake.
    Of several the oldest strikes. A connection that has lost a command or a reply is silent from
    there on, as TCP would have it, and `heal` cuts it. A server that is gone shows as a connection
    cut at once.

    Attributes:
        port: Where it listens.
        url: The same for clients.
        commands: How many came, by name in capitals, whatever became of them.
        connections: How many came.
        struck: How many commands met a fault of commands.
    """

    def __init__(self, port: int) -> None:
        self.commands: Counter[str] = Counter()
        self.connections = 0
        self.struck = 0
        self._server_port = port
        self._faults: list[_Fault] = []
        self._lines: set[_Line] = set()
        self._swallows = False
        self._listener: asyncio.Server | None = None
        # Bound and never listening: while connections are refused, nobody else gets the port.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind((HOST, 0))
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"redis://{HOST}:{self.port}/0"

    def heal(self) -> None:
        """Let everything pass again."""
        self._do(self._heal())

    def refuse(self) -> None:
        """Refuse connections, and cut those there are."""
        self._do(self._refuse())

    def black_hole(self) -> None:
        """Take connections, swallow what comes from either side, on old ones too; never answer."""
        self._swallows = True

    def reset(self, at: int | None = None, n: int | None = 1) -> None:
        """Reset (RST) all connections now, or in the stead of `n` commands from the `at`-th on."""
        if at is None:
            self._do(self._reset())
        else:
            self._add("reset", n, skip=at - 1)

    def lose_replies(self, n: int | None = None, of: str | None = None, match: bytes = b"") -> None:
        """Let the server do the commands, and nobody hear of it."""
        self._add("lose", n, of, match)

    def cut(
        self, n: int | None = 1, of: str | None = None, match: bytes = b"", *, before: bool
    ) -> None:
        """Cut the connection before a command reaches the server, or when it has been done."""
        self._add("cut before" if before else "cut after", n, of, match)

    def answer(
        self, error: str, n: int | None = None, of: str | None = None, match: bytes = b""
    ) -> None:
        """Answer with an error, "LOADING …" say, and do not ask the server."""
        self._add("answer", n, of, match, error=f"-{error}\r\n".encode())

    def delay(
        self, seconds: float, n: int | None = None, of: str | None = None, match: bytes = b""
    ) -> None:
        """Hold replies back, and with each what comes after it on its connection."""
        self._add("delay", n, of, match, seconds=seconds)

    def slow_drip(
        self, pause_s: float, n: int | None = None, of: str | None = None, match: bytes = b""
    ) -> None:
        """Send replies byte by byte, with a pause after each."""
        self._add("drip", n, of, match, seconds=pause_s)

    def __enter__(self) -> "FaultProxy":
        """Be listening."""
        listening = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._main(listening),), name="fault-proxy", daemon=True
        )
        self._thread.start()
        assert listening.wait(180)
        return self

    def __exit__(self, *_: object) -> None:
        """Be gone."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._reserved.close()

    def _add(self, kind: Kind, n: int | None, *words: Any, **more: Any) -> None:
        self._faults.append(_Fault(kind, n, *words, **more))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(180)

    async def _main(self, listening: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._end, self._healed = asyncio.Event(), asyncio.Event()
        await self._listen()
        listening.set()
        await self._end.wait()
        self._swallows = False
        self._healed.set()
        await self._refuse()
        while self._lines:
            await asyncio.sleep(0)

    async def _listen(self) -> None:
        if not self._listener:
            self._listener = await asyncio.start_server(
                self._serve, HOST, self.port, limit=PIECE, backlog=1024, reuse_port=True
            )

    async def _heal(self) -> None:
        self._faults.clear()
        self._swallows = False
        for line in self._lines:
            if line.silent:
                line.cut()
        self._healed.set()
        self._healed = asyncio.Event()
        await self._listen()

    async def _refuse(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None
        for line in self._lines:
            line.cut()

    async def _reset(self) -> None:
        for line in self._lines:
            line.reset()

    async def _serve(self, *client: Any) -> None:
        self.connections += 1
        line = _Line(client)
        self._lines.add(line)
        try:
            line.server = await asyncio.open_connection(HOST, self._server_port, limit=PIECE)
            if self._listener:
                await asyncio.gather(
                    self._up(line, line.server[1]), self._down(line, line.server[0])
                )
        except OSError:
            await self._dawn()
        finally:
            line.cut()
            self._lines.discard(line)

    async def _up(self, line: "_Line", server: asyncio.StreamWriter) -> None:
        messages = _Messages()
        while data := await line.client[0].read(PIECE):
            for command in messages.cut(data):
                name = _name(command)
                self.commands[name] += 1
                if self._swallows:
                    line.silent = True
                    continue
                fault = next((each for each in self._faults if each.strikes(name, command)), NONE)
                self.struck += fault is not NONE
                match fault.kind:
                    case "reset":
                        return line.reset()
                    case "cut before":
                        server.close()  # when it has what came before
                        return line.client[1].transport.abort()
                if name in STREAMS:
                    line.streams = True
                    line.silent |= fault.kind == "lose"
                else:
                    line.pending.append(fault)
                if fault.kind == "answer":
                    self._answer(line)
                else:
                    server.write(command)
            await server.drain()
        return server.close()

    async def _down(self, line: "_Line", server: asyncio.StreamReader) -> None:
        messages, client = _Messages(), line.client[1]
        while data := await server.read(PIECE):
            for reply in messages.cut(data):
                if line.streams or reply[:1] == b">" or not line.pending:
                    self._send(line, reply)
                    continue
                fault, healed = line.pending[0], self._healed
                match fault.kind:
                    case "cut after":
                        return client.close()
                    case "lose":
                        line.silent = True
                    case "delay":
                        await _wait(healed, fault.seconds)
                    case "drip":
                        while len(reply) > 1 and not healed.is_set():
                            self._send(line, reply[:1])
                            reply = reply[1:]
                            await _wait(healed, fault.seconds)
                self._send(line, reply)
                line.pending.popleft()
                self._answer(line)
            await client.drain()
        await self._dawn()
        return client.close()

    def _answer(self, line: "_Line") -> None:
        """Give the answers of our own whose turn it is."""
        while line.pending and line.pending[0].kind == "answer":
            self._send(line, line.pending.popleft().error)

    def _send(self, line: "_Line", reply: bytes) -> None:
        line.silent |= self._swallows
        if not line.silent and not line.client[1].is_closing():
            line.client[1].write(reply)

    async def _dawn(self) -> None:
        """Wait while nothing at all can be heard, not even that a connection has ended."""
        while self._swallows:
            await self._healed.wait()


@dataclass
class _Fault:
    kind: Kind
    left: int | None = None
    of: str | None = None
    match: bytes = b""
    skip: int = 0
    seconds: float = 0.0
    error: bytes = b""

    def strikes(self, name: str, command: bytes) -> bool:
        """Tell whether this command is the fault's, and count it."""
        if self.of or self.match:
            meant = self.of in {None, name} and self.match in command
        else:
            meant = name not in HANDSHAKE
        if not meant or self.left == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.left:
            self.left -= 1
        return True


NONE = _Fault("none")


@dataclass(eq=False)
class _Line:
    """A client's connection, and ours to the server; `pending` awaits a reply each, in order."""

    client: Way
    server: Way | None = None
    pending: deque[_Fault] = field(default_factory=deque)
    silent: bool = False
    streams: bool = False

    def cut(self) -> None:
        """End both at once."""
        for _, writer in filter(None, (self.client, self.server)):
            writer.transport.abort()

    def reset(self) -> None:
        """End it with a RST to the client."""
        linger = struct.pack("ii", 1, 0)
        with suppress(OSError):
            self.client[1].get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
        self.cut()


class _Messages:
    """Cuts a stream into whole RESP messages; looks at no byte of a payload."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._at = 0
        self._left = 1

    def cut(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece of the stream, and yield what it completes."""
        self._bytes += data
        while self._whole():
            yield bytes(self._bytes[: self._at])
            del self._bytes[: self._at]
            self._at, self._left = 0, 1

    def _whole(self) -> bool:
        while self._left:
            end = self._bytes.find(b"\r\n", self._at) + 2
            if end < 2:
                return False
            kind = chr(self._bytes[self._at])
            if kind in "$=!":
                size = int(self._bytes[self._at + 1 : end])
                end += size + 2 if size >= 0 else 0
                if end > len(self._bytes):
                    return False
            elif kind in "*~>%|":
                count = int(self._bytes[self._at + 1 : end])
                pairs = kind in "%|"
                # An attribute (|) stands before what it belongs to.
                self._left += max(0, count) * (1 + pairs) + (kind == "|")
            self._left -= 1
            self._at = end
        return True


def _name(command: bytes) -> str:
    words = command[:80].split(b"\r\n", 3)
    return (words[2] if command[:1] == b"*" else words[0]).decode(errors="replace").upper()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)

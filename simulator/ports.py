"""
Listening ports: the common one, and one for each label that asks, which can refuse connections.

A refusing port stays reserved: a bound socket that does not listen holds it (SO_REUSEPORT), so that
no other process takes it meanwhile and clients are refused as by a host without a server.
"""

import asyncio
import socket
from dataclasses import dataclass, field

from simulator.connection import Connection, Handler
from simulator.faults import BadOrder

BACKLOG = 4_096


@dataclass(slots=True)
class _Port:
    holder: socket.socket
    number: int
    server: asyncio.Server | None = None
    opened: set[Connection] = field(default_factory=set)


class Ports:
    """
    The listening sockets of this process, by name.

    Args:
        host: The address to listen on.
        handle: Answers the requests of every connection.
    """

    def __init__(self, host: str, handle: Handler) -> None:
        self._host = host
        self._handle = handle
        self._ports: dict[str, _Port] = {}

    async def open(self, name: str, number: int = 0) -> int:
        """Listen on a port, the same as before if there was one; return its number."""
        port = self._ports.get(name)
        if port is None:
            if number:
                self._check_free(number)
            holder = self._bind(number)
            port = self._ports[name] = _Port(holder, holder.getsockname()[1])
        if port.server is None:
            opened = port.opened
            port.server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self._handle, opened),
                sock=self._bind(port.number),
                backlog=BACKLOG,
            )
        return port.number

    def refuse(self, name: str) -> None:
        """
        Stop listening, and reset the open connections.

        Raises:
            BadOrder: The label has no port of its own.
        """
        port = self._ports.get(name)
        if port is None:
            raise BadOrder(f"label {name!r} has no port of its own; open one first")
        if port.server is not None:
            port.server.close()
            port.server = None
        for connection in list(port.opened):
            connection.reset()

    def numbers(self) -> dict[str, int]:
        """Return the ports of the labels that have their own."""
        return {name: port.number for name, port in self._ports.items() if name}

    async def accept(self, name: str) -> None:
        """Listen again if the label's port refuses connections."""
        if name in self._ports:
            await self.open(name)

    def close(self) -> None:
        """Stop listening everywhere."""
        for name in self._ports:
            self.refuse(name)

    def _check_free(self, number: int) -> None:
        """
        Refuse a port that another process uses: it would get a share of the connections.

        Raises:
            OSError: Another process has it.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((self._host, number))  # without SO_REUSEPORT, unlike in `_bind`

    def _bind(self, number: int) -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((self._host, number))
        bound.setblocking(False)
        return bound

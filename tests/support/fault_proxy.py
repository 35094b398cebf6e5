"""A TCP relay before a Redis-protocol server that does to commands and replies what networks do."""

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Literal

Fault = Literal["none", "refuse", "black hole", "lose replies", "delay", "drip", "reset", "answer"]


class FaultProxy:
    """
    Relay to a port; `fault` says what happens to whatever comes next.

    A request that comes in one piece is one command or one pipeline, as redis-py sends them.

    Attributes:
        fault: none: relay. refuse: hang up at once. black hole: swallow requests. lose replies:
            the server does it, nobody hears. delay: replies are late. drip: replies come byte by
            byte. reset: the connection is reset instead of a reply. answer: `error` is the reply,
            and the server is not asked.
        requests: How many came.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.fault: Fault = "none"
        self.error = "LOADING Redis is loading the dataset in memory"
        self.late_s = 0.5
        self.requests = 0
        self._lines: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def strikes(self, fault: Fault, error: str = "") -> None:
        """Let a fault begin; one that concerns connections cuts those there are."""
        self.fault, self.error = fault, error or self.error
        if fault == "refuse":
            for line in self._lines:
                with suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def heals(self) -> None:
        """Relay again."""
        self.fault = "none"

    def __enter__(self) -> "FaultProxy":
        """Be listening."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up everywhere."""
        self._listener.close()
        self.strikes("refuse")

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.fault == "refuse":
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._lines += [client, server]
                for pump in (self._up, self._down):
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                self.requests += 1
                if self.fault == "answer":
                    client.sendall(f"-{self.error}\r\n".encode())
                elif self.fault != "black hole":
                    server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if self.fault == "lose replies":
                    continue
                if self.fault == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                if self.fault == "delay":
                    time.sleep(self.late_s)
                if self.fault == "drip":
                    for number in range(len(data)):
                        client.sendall(data[number : number + 1])
                        time.sleep(self.late_s / 10)
                    continue
                client.sendall(data)
        client.close()

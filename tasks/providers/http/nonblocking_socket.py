"""
A socket for calls that mostly wait: no buffer while it waits, and few system calls.

A socket with a timeout, as httpcore2 uses it, allocates a buffer and then waits, and each read and
each write takes two or three system calls. Each of them releases the interpreter's lock, which is
the main cost of a call where hundreds of threads want the lock. Here a write takes one system call,
a read two.
"""

import functools
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

import httpcore2

T = TypeVar("T")


class NonBlockingSocket:
    """
    Reads and writes of one socket, which is made non-blocking.

    Args:
        sock: Connected; with TLS, after its handshake.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.settimeout(0)

    def read(self, most: int, within_s: float) -> bytes:
        """
        Wait for bytes, and return them; b"" at the end.

        Raises:
            httpcore2.ReadTimeout: No byte came in time.
            httpcore2.ReadError: The connection broke.
        """
        ends_at = time.monotonic() + within_s
        try:
            # Bytes that are decrypted already do not make the socket readable.
            if not (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()):
                self._wait(select.POLLIN, ends_at)
            return self._do(lambda: self._sock.recv(most), select.POLLIN, ends_at)
        except TimeoutError:
            raise httpcore2.ReadTimeout("timed out") from None
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    def write(self, data: bytes, within_s: float) -> None:
        """
        Send all of the data.

        Raises:
            httpcore2.WriteTimeout: The peer did not accept it in time.
            httpcore2.WriteError: The connection broke.
        """
        ends_at = time.monotonic() + within_s
        rest = memoryview(data)
        try:
            while rest:
                step = functools.partial(self._sock.send, rest)
                rest = rest[self._do(step, select.POLLOUT, ends_at) :]
        except TimeoutError:
            raise httpcore2.WriteTimeout("timed out") from None
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    def _do(self, step: Callable[[], T], event: int, ends_at: float) -> T:
        while True:
            try:
                return step()
            except BlockingIOError:
                self._wait(event, ends_at)
            except ssl.SSLWantReadError:  # TLS may have to read before it can write, and vice versa
                self._wait(select.POLLIN, ends_at)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, ends_at)

    def _wait(self, event: int, ends_at: float) -> None:
        poll = select.poll()
        poll.register(self._sock, event)
        if not poll.poll(max(ends_at - time.monotonic(), 0) * 1000):
            raise TimeoutError

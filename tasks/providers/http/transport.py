"""
The HTTP transport under all three SDKs: one connection per call, the last used first.

httpx2's own pool looks at every connection twice a request (measured with 1,000 calls in flight in
threads: 3.5 to 4.0 ms CPU a call, against 1.2 to 1.4 here; far more under gevent), and its timeouts
are per read, so that an answer which trickles in outlives any of them. Here a connection is
checked out in O(1), there is no upper bound (the worker's concurrency is one), and every read and
write is given what is left of the *whole call*: the request's read timeout counts as its total,
from connecting to the last byte. Connecting has a shorter one of its own. Only the resolver is
out of reach: it has the system's timeouts. A stream may have a pace beside its total: each read
waits for the earlier of the two, and keep-alives, which move neither, do not prolong it.
"""

import functools
import os
import socket
import ssl
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import httpcore2
import httpx2

from breakwater.errors import Cancelled, HostFault, TruncatedAnswer
from tasks.providers.http.bounded import ENCODINGS, bounded
from tasks.providers.http.call_limits import current
from tasks.providers.http.host import proxy_for, proxy_variable, ssl_context
from tasks.providers.http.nonblocking_socket import Waiting

IDLE_S = 60.0
"""How long an unused connection is kept."""

DEFAULT_TOTAL_S = 600.0
"""The whole call's time where a request brings none."""

READ_BYTES = 8 * 1024
"""What is read at once; httpcore2's 64 kB are more than most answers have."""

SENT_TOGETHER = 64 * 1024
"""Up to this size, bytes, a request's head and body are sent as one."""

# Routers forget a silent connection within minutes, and a reasoning model is silent for longer.
KEEPALIVE: list[httpcore2.SOCKET_OPTION] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
if hasattr(socket, "TCP_KEEPIDLE"):  # not on macOS
    KEEPALIVE += [
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
    ]

T = TypeVar("T")


def abort(thread_id: int) -> bool:
    """
    End the call that a thread (or greenlet) is waiting for; it fails there with Cancelled.

    Args:
        thread_id: What `threading.get_ident()` returns in the thread that makes the call.

    Returns:
        Whether a call of that thread was in flight.
    """
    return sum(call.abort() for call in list(_in_flight) if call.thread_id == thread_id) > 0


def abort_attempt(task_id: str, number: int) -> bool:
    """
    End the call of one attempt of a task; it fails with Cancelled in the thread that makes it.

    Args:
        task_id: The task's.
        number: The attempt's, as in `abortable_as`.

    Returns:
        Whether the call was in flight.
    """
    key = task_id, number
    return sum(call.abort() for call in list(_in_flight) if call.attempt == key) > 0


def abort_all() -> int:
    """End every call of this process; return how many were in flight."""
    return sum(call.abort() for call in list(_in_flight))


class Transport(httpx2.HTTPTransport):
    """
    httpx2's transport over a pool of our own.

    Args:
        base_url: Where the calls go; it decides which proxy of the environment applies, if any.
        connect_s: How long connecting may take, and the TLS handshake after it.
    """

    def __init__(self, base_url: str, connect_s: float) -> None:
        # Not the parent's, which would build a pool and an SSL context only to drop them.
        self._pool = _Pool(connect_s, proxy_for(base_url))  # type: ignore[assignment]

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; what is read of the response is bounded."""
        request.headers["accept-encoding"] = ENCODINGS
        return bounded(super().handle_request(request))

    # The parent's enter and leave its pool; these close the transport, and no more.
    __enter__ = httpx2.BaseTransport.__enter__
    __exit__ = httpx2.BaseTransport.__exit__

    def close(self) -> None:
        """End the calls in flight, and any that come later, as Cancelled; close what is idle."""
        self._pool.close()


class _Pool:
    """The connections of one provider."""

    def __init__(self, connect_s: float, proxy: httpcore2.Proxy | None) -> None:
        self._connect_s = connect_s
        self._proxy = proxy
        # By process and origin, the last used at the right end; a forked child finds none of its
        # parent's, which would bring it the parent's answers.
        self._idle: defaultdict[tuple[int, str], deque[_Line]] = defaultdict(deque)
        self._closed = False

    def handle_request(self, request: httpcore2.Request) -> httpcore2.Response:
        idle = self._idle[os.getpid(), str(request.url.origin)]
        line = self._take(idle) or self._new(request.url.origin)
        total_s = request.extensions.get("timeout", {}).get("read")
        line.call = call = _Call(self, line, DEFAULT_TOTAL_S if total_s is None else total_s)
        _in_flight.add(call)
        release = functools.partial(self._release, call, idle)
        try:
            if self._closed:  # after the call could be seen by close(), so that none slips through
                raise Cancelled("the provider's connections are closed: shutting down")
            response = line.connection.handle_request(request)
        except BaseException:
            release()
            raise
        return httpcore2.Response(
            status=response.status,
            headers=response.headers,
            content=_Body(response.stream, release),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._closed = True
        for call in list(_in_flight):
            if call.pool is self:
                call.abort()
        for idle in self._idle.values():
            while line := self._take(idle):
                line.hang_up()

    def _take(self, idle: "deque[_Line]") -> "_Line | None":
        while True:
            try:
                line = idle.pop()
            except IndexError:
                return None
            if not line.connection.has_expired():  # too old, or hung up by the other side
                return line
            line.hang_up()

    def _new(self, origin: httpcore2.Origin) -> "_Line":
        proxied_by = proxy_variable(origin.scheme.decode()) if self._proxy else None
        line = _Line(self._connect_s, proxied_by)
        # The stock pool as a factory: it knows how to go through each kind of proxy.
        line.connection = httpcore2.ConnectionPool(
            ssl_context=_ssl_context() if origin.scheme == b"https" else None,
            proxy=self._proxy,
            keepalive_expiry=IDLE_S,
            network_backend=line,
        ).create_connection(origin)
        return line

    def _release(self, call: "_Call", idle: "deque[_Line]") -> None:
        with call.line.lock:
            call.done = True
        _in_flight.discard(call)
        if self._closed or not call.line.connection.is_idle():
            call.line.hang_up()
            return
        idle.append(call.line)
        with suppress(IndexError):  # another thread may have taken the last
            while (oldest := idle.popleft()).connection.has_expired():
                oldest.hang_up()
            idle.appendleft(oldest)


class _Call:
    """One request in flight: when it must end, and how to end it from another thread."""

    def __init__(self, pool: _Pool, line: "_Line", total_s: float) -> None:
        self.pool = pool
        self.line = line
        self.thread_id = threading.get_ident()
        self.attempt = current.attempt
        self.ends_at = time.monotonic() + total_s
        self.aborted = False
        self.done = False
        self.before_sending = current.before_sending
        self.pace = current.pace
        if self.pace:
            self.pace.begin()

    def left_s(self, timed_out: type[Exception]) -> float:
        self.raise_if_aborted()
        ends_at = min(self.ends_at, self.pace.due_at) if self.pace else self.ends_at
        left_s = ends_at - time.monotonic()
        if left_s <= 0:
            raise timed_out("the call's total time is over")
        return left_s

    def abort(self) -> bool:
        with self.line.lock:  # or else the line might serve the next call by now
            if self.done:
                return False
            self.aborted = True
            self.line.shut_down()
            return True

    def send(self) -> None:
        """Take the step that was asked for, once, before the first byte."""
        step, self.before_sending = self.before_sending, None
        if step:
            step()

    def raise_if_aborted(self) -> None:
        if self.aborted:
            raise Cancelled("the call was ended from our side")


class _Line(httpcore2.NetworkBackend, httpcore2.NetworkStream):
    """One socket with its HTTP connection; it serves one call at a time, and keeps its time."""

    call: _Call
    connection: httpcore2.ConnectionInterface

    def __init__(self, connect_s: float, proxied_by: str | None = None) -> None:
        self.lock = threading.Lock()
        self._connect_s = connect_s
        self._proxied_by = proxied_by
        self._stream = httpcore2.NetworkStream()  # until there is a socket
        self._waiting: Waiting | None = None
        self._unsent = b""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        def connect(left_s: float) -> httpcore2.NetworkStream:
            at_most_s = min(left_s, self._connect_s)
            return _BACKEND.connect_tcp(host, port, at_most_s, local_address, KEEPALIVE)

        try:
            self._use(self._in_time(connect, httpcore2.ConnectTimeout))
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
            if self._proxied_by is None or time.monotonic() >= self.call.ends_at:
                raise
            what = f"the proxy of {self._proxied_by} cannot be reached from this host"
            raise HostFault(what) from None
        return self

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        def shake_hands(left_s: float) -> httpcore2.NetworkStream:
            at_most_s = min(left_s, self._connect_s)
            return self._stream.start_tls(ssl_context, server_hostname, at_most_s)

        self._use(self._in_time(shake_hands, httpcore2.ConnectTimeout))
        return self

    def _use(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        # TLS to a proxy and TLS inside it are not one socket's; httpcore2 has those.
        nested = isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject)
        self._waiting = None if nested else Waiting(stream.get_extra_info("socket"))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unsent:  # a chunked body's end is not empty
            self._flush()
        read = functools.partial((self._waiting or self._stream).read, min(max_bytes, READ_BYTES))
        data = self._in_time(read, httpcore2.ReadTimeout)
        self.call.raise_if_aborted()  # a socket that was shut down reads as if at its end
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send, when the request is whole: its head, its body and its end come one by one."""
        self.call.send()
        if buffer and len(self._unsent) + len(buffer) <= SENT_TOGETHER:
            self._unsent += buffer
        else:
            self._flush(buffer)

    def _flush(self, more: bytes = b"") -> None:
        unsent, self._unsent = self._unsent, b""
        for data in (unsent, more):
            write = functools.partial((self._waiting or self._stream).write, data)
            self._in_time(write, httpcore2.WriteTimeout)

    def _in_time(self, operation: Callable[[float], T], timed_out: type[Exception]) -> T:
        try:
            return operation(self.call.left_s(timed_out))
        except Exception as error:
            self.call.raise_if_aborted()
            if self.call.pace and isinstance(error, timed_out):
                self.call.pace.raise_if_late()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def shut_down(self) -> None:
        """Wake the thread that reads or writes; closing the socket would not."""
        if sock := self._stream.get_extra_info("socket"):
            with suppress(OSError):  # not connected any more
                # Not SSLSocket's own: it drops the TLS object, and the reader gets ciphertext.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(NotImplementedError):  # never connected
            self._stream.close()

    def hang_up(self) -> None:
        self.connection.close()
        self.close()  # a connection whose set-up failed does not


class _Body:
    """The answer's body; gives the line back when closed."""

    def __init__(self, stream: Any, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except httpcore2.RemoteProtocolError as error:
            raise TruncatedAnswer("the connection closed before the answer's end") from error

    def close(self) -> None:
        release, self._release = self._release, None
        if release:
            self._stream.close()
            release()


@functools.cache  # 18 ms and 0.8 MB each
def _ssl_context() -> ssl.SSLContext:
    return ssl_context()


_BACKEND = httpcore2.SyncBackend()
_in_flight: set[_Call] = set()
os.register_at_fork(after_in_child=_in_flight.clear)  # not ours to shut down

"""
The HTTP transport under all three SDKs: one connection per call, the last used first.

httpx2's own pool scans every connection twice per request (measured with 1,000 calls in flight in
threads: 3.5 to 4.0 ms of CPU per call, against 1.2 to 1.4 ms here; far more under gevent), and its
timeouts apply to each read, so an answer that trickles in outlives any of them. Here a connection
is checked out in O(1), the pool has no upper bound (the worker's concurrency is one), and each read
and write may use what is left of the *whole call's* time: the request's read timeout is its total,
from connecting to the last byte. Connecting has a shorter timeout of its own. Only the resolver
keeps the system's timeouts. A stream may have timeouts per token besides its total: each read ends
at the earlier of the two, and keep-alives, which move neither, do not prolong it.

Another thread can end a call, which then fails with Cancelled: `abort_attempt(task_id, number)`
ends the calls of one attempt (see `call_limits.abortable_as`), `abort(thread_id)` those of one
thread, and `abort_all()` all of them.
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
from tasks.providers.http.call_limits import current, running
from tasks.providers.http.host import proxy_for, proxy_variable, ssl_context
from tasks.providers.http.nonblocking_socket import NonBlockingSocket

IDLE_S = 60.0
"""How long an unused connection is kept."""

DEFAULT_TOTAL_S = 600.0
"""The total timeout of a call whose request has none."""

READ_BYTES = 8 * 1024
"""The most that one read asks for; httpcore2's 64 kB are more than most answers have."""

SENT_TOGETHER = 64 * 1024
"""A request's head and body are sent in one write up to this size, in bytes."""

# Routers drop silent connections within minutes, and a reasoning model is silent for longer.
KEEPALIVE: list[httpcore2.SOCKET_OPTION] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
if hasattr(socket, "TCP_KEEPIDLE"):  # not on macOS
    KEEPALIVE += [
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
    ]

T = TypeVar("T")


def abort_attempt(task_id: str, number: int) -> bool:
    """
    End the calls of one attempt; they fail with Cancelled in the thread that makes them.

    A call that the attempt starts after this fails as well, before its first byte is sent.

    Args:
        task_id: The task's id, as passed to `call_limits.abortable_as`.
        number: The attempt's number, likewise.

    Returns:
        Whether a call of the attempt was in flight.
    """
    attempt = running.get((task_id, number))
    if attempt is None:
        return False
    attempt.aborted = True
    return _abort(call for call in list(_in_flight) if call.attempt is attempt) > 0


def abort(thread_id: int) -> bool:
    """
    End the call that a thread (or greenlet) is waiting for; it fails there with Cancelled.

    Args:
        thread_id: The result of `threading.get_ident()` in the thread that makes the call.

    Returns:
        Whether a call of that thread was in flight.
    """
    return _abort(call for call in list(_in_flight) if call.thread_id == thread_id) > 0


def abort_all() -> int:
    """End every call of this process; return how many were in flight."""
    return _abort(list(_in_flight))


def _abort(calls: "Iterable[_Call]") -> int:
    return sum(call.abort() for call in calls)


class Transport(httpx2.HTTPTransport):
    """
    httpx2's transport over a pool of this module.

    Args:
        base_url: The provider's address; it decides which proxy of the environment applies, if any.
        connect_s: Seconds for connecting, and again for the TLS handshake after it.
    """

    def __init__(self, base_url: str, connect_s: float) -> None:
        # Not super().__init__(), which would build a pool and an SSL context in vain.
        self._pool = _Pool(connect_s, proxy_for(base_url))  # type: ignore[assignment]

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; return a response whose body is bounded in size."""
        if request.headers.get("accept-encoding") != ENCODINGS:
            request.headers["accept-encoding"] = ENCODINGS
        return bounded(super().handle_request(request))

    # The parent's enter and exit its pool; these only close the transport.
    __enter__ = httpx2.BaseTransport.__enter__
    __exit__ = httpx2.BaseTransport.__exit__

    def close(self) -> None:
        """Close idle connections; calls in flight, and any later ones, fail with Cancelled."""
        self._pool.close()


class _Pool:
    """The connections of one provider."""

    def __init__(self, connect_s: float, proxy: httpcore2.Proxy | None) -> None:
        self._connect_s = connect_s
        self._proxy = proxy
        # By process and origin, the last used at the right end. A forked child must not use its
        # parent's connections: they would bring it the parent's answers.
        self._idle: defaultdict[tuple[int, str], deque[_PooledConnection]] = defaultdict(deque)
        self._closed = False

    def handle_request(self, request: httpcore2.Request) -> httpcore2.Response:
        idle = self._idle[os.getpid(), str(request.url.origin)]
        pooled = self._take_idle(idle) or self._new(request.url.origin)
        total_s = request.extensions.get("timeout", {}).get("read")
        if total_s is None:
            total_s = DEFAULT_TOTAL_S
        pooled.call = call = _Call(self, pooled, total_s)
        _in_flight.add(call)
        release = functools.partial(self._release, call, idle)
        try:
            # After the call was added: close() or abort_attempt() either finds it or came before.
            self._raise_if_not_wanted(call)
            response = pooled.connection.handle_request(request)
        except BaseException:
            release()
            raise
        return httpcore2.Response(
            status=response.status,
            headers=response.headers,
            content=_ResponseBody(response.stream, release),
            extensions=response.extensions,
        )

    def _raise_if_not_wanted(self, call: "_Call") -> None:
        if self._closed:
            raise Cancelled("the provider's connections are closed: shutting down")
        if call.attempt and call.attempt.aborted:
            raise Cancelled(ABORTED)

    def close(self) -> None:
        self._closed = True
        _abort(call for call in list(_in_flight) if call.pool is self)
        for idle in self._idle.values():
            while pooled := self._take_idle(idle):
                pooled.discard()

    def _take_idle(self, idle: "deque[_PooledConnection]") -> "_PooledConnection | None":
        while True:
            try:
                pooled = idle.pop()
            except IndexError:
                return None
            if not pooled.connection.has_expired():  # idle for too long, or closed by the server
                return pooled
            pooled.discard()

    def _new(self, origin: httpcore2.Origin) -> "_PooledConnection":
        proxied_by = None
        if self._proxy:
            proxied_by = proxy_variable(origin.scheme.decode())
        tls_context = None
        if origin.scheme == b"https":
            tls_context = _ssl_context()
        pooled = _PooledConnection(self._connect_s, proxied_by)
        # The stock pool serves as a factory: it handles each kind of proxy.
        pooled.connection = httpcore2.ConnectionPool(
            ssl_context=tls_context,
            proxy=self._proxy,
            keepalive_expiry=IDLE_S,
            network_backend=pooled,
        ).create_connection(origin)
        return pooled

    def _release(self, call: "_Call", idle: "deque[_PooledConnection]") -> None:
        with call.pooled.lock:
            call.done = True
        _in_flight.discard(call)
        if self._closed or not call.pooled.connection.is_idle():
            call.pooled.discard()
            return
        idle.append(call.pooled)
        with suppress(IndexError):  # another thread may have taken the last
            while (oldest := idle.popleft()).connection.has_expired():
                oldest.discard()
            idle.appendleft(oldest)


class _Call:
    """One request in flight: its deadline, and a way to abort it from another thread."""

    def __init__(self, pool: _Pool, pooled: "_PooledConnection", total_s: float) -> None:
        self.pool = pool
        self.pooled = pooled
        self.thread_id = threading.get_ident()
        self.attempt = current.attempt
        self.ends_at = time.monotonic() + total_s
        self.aborted = False
        self.done = False
        self.before_sending = current.before_sending
        self.timeouts = current.timeouts
        if self.timeouts:
            self.timeouts.start()

    def left_s(self, timed_out: type[Exception]) -> float:
        self.raise_if_aborted()
        ends_at = self.ends_at
        if self.timeouts and self.timeouts.due_at < ends_at:
            ends_at = self.timeouts.due_at
        left_s = ends_at - time.monotonic()
        if left_s <= 0:
            raise timed_out("the call's total time is over")
        return left_s

    def abort(self) -> bool:
        with self.pooled.lock:  # without it, the connection might already serve the next call
            if self.done:
                return False
            self.aborted = True
            self.pooled.shut_down()
            return True

    def run_before_sending(self) -> None:
        """Run the hook once, before the first byte."""
        hook, self.before_sending = self.before_sending, None
        if hook:
            hook()

    def raise_if_aborted(self) -> None:
        if self.aborted:
            raise Cancelled(ABORTED)


class _PooledConnection(httpcore2.NetworkBackend, httpcore2.NetworkStream):
    """One socket with its HTTP connection; serves one call at a time, within the call's time."""

    call: _Call
    connection: httpcore2.ConnectionInterface

    def __init__(self, connect_s: float, proxied_by: str | None = None) -> None:
        self.lock = threading.Lock()
        self._connect_s = connect_s
        self._proxied_by = proxied_by
        self._stream = httpcore2.NetworkStream()  # until there is a socket
        self._socket: NonBlockingSocket | None = None
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
            timeout_s = min(left_s, self._connect_s)
            return _BACKEND.connect_tcp(host, port, timeout_s, local_address, KEEPALIVE)

        try:
            self._use(self._in_time(connect, httpcore2.ConnectTimeout))
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
            if self._proxied_by is None or time.monotonic() >= self.call.ends_at:
                raise
            message = f"the proxy of {self._proxied_by} cannot be reached from this host"
            raise HostFault(message) from None
        return self

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        def shake_hands(left_s: float) -> httpcore2.NetworkStream:
            timeout_s = min(left_s, self._connect_s)
            return self._stream.start_tls(ssl_context, server_hostname, timeout_s)

        self._use(self._in_time(shake_hands, httpcore2.ConnectTimeout))
        return self

    def _use(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        if isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject):
            # TLS to a proxy with TLS inside it is not one socket; httpcore2 reads and writes it.
            self._socket = None
        else:
            self._socket = NonBlockingSocket(stream.get_extra_info("socket"))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unsent:  # the end of a chunked body is not empty
            self._flush()
        read = functools.partial((self._socket or self._stream).read, min(max_bytes, READ_BYTES))
        data = self._in_time(read, httpcore2.ReadTimeout)
        self.call.raise_if_aborted()  # a socket that was shut down returns b"", as at its end
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Buffer the head, the body and the end, which come one by one; send them as one."""
        self.call.run_before_sending()
        if buffer and len(self._unsent) + len(buffer) <= SENT_TOGETHER:
            self._unsent += buffer
        else:
            self._flush(buffer)

    def _flush(self, more: bytes = b"") -> None:
        unsent, self._unsent = self._unsent, b""
        for data in (unsent, more):
            write = functools.partial((self._socket or self._stream).write, data)
            self._in_time(write, httpcore2.WriteTimeout)

    def _in_time(self, operation: Callable[[float], T], timed_out: type[Exception]) -> T:
        try:
            return operation(self.call.left_s(timed_out))
        except Exception as error:
            self.call.raise_if_aborted()
            if self.call.timeouts and isinstance(error, timed_out):
                self.call.timeouts.raise_if_late()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def shut_down(self) -> None:
        """Wake the thread that reads or writes; closing the socket would not."""
        if sock := self._stream.get_extra_info("socket"):
            with suppress(OSError):  # no longer connected
                # Not SSLSocket's own: it drops the TLS object, and the reader gets ciphertext.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; the HTTP connection calls this."""
        with suppress(NotImplementedError):  # never connected
            self._stream.close()

    def discard(self) -> None:
        """Close the HTTP connection and its socket."""
        self.connection.close()
        self.close()  # if its set-up failed, the HTTP connection does not close the socket


class _ResponseBody:
    """The response's body; releases the connection when closed."""

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


ABORTED = "the call was ended from our side"
_BACKEND = httpcore2.SyncBackend()
_in_flight: set[_Call] = set()
os.register_at_fork(after_in_child=_in_flight.clear)  # the parent's calls

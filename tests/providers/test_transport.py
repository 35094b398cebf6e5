"""The transport: deadlines that hold, calls that can be ended, connections never mixed up."""

import os
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from breakwater.errors import Cancelled, ConnectionFailed, ProviderError, ProviderTimeout
from simulator.client import Simulator
from tasks.providers.http import transport
from tasks.providers.http.call_limits import abortable_as, running
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import answer_of, request
from tests.support.waiting import wait_for

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def listening(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run `talk` for each connection, in a thread of its own; yield the address."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=run, args=(peer,), daemon=True).start()

    def run(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            talk(peer)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def answering(peer: socket.socket) -> None:
    """Answer each request of a connection."""
    while peer.recv(65536):
        peer.sendall(OK)


def silent(peer: socket.socket) -> None:
    """Read, and say nothing."""
    while peer.recv(65536):
        pass


def client(url: str, connect_s: float = 180, total_s: float = 180) -> httpx2.Client:
    """Return an HTTP client over the transport."""
    return httpx2.Client(transport=transport.Transport(url, connect_s), timeout=total_s)


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    wait_for(holds, explain=lambda: f"never: {what}")


def in_flight(pool: object) -> int:
    """Count the calls of one client."""
    mine = pool._transport._pool  # type: ignore[attr-defined]
    return sum(call.pool is mine for call in list(transport._in_flight))


def idle(pool: object) -> int:
    """Count the connections one client keeps."""
    return sum(map(len, pool._transport._pool._idle.values()))  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_a_call_ends_with_its_total_time_in_threads(
    fault: str, adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """A byte a moment keeps every read alive; the call as a whole ends nevertheless."""
    simulator.fault(label, fault, interval_s=0.05)
    provider = build(adapter, simulator.url(label))

    def ask(_: int) -> float:
        started = time.monotonic()
        with pytest.raises(ProviderTimeout, match="no whole answer in time"):
            provider.complete(request(timeout_s=1))
        return time.monotonic() - started

    with ThreadPoolExecutor(10) as threads:
        took_s = list(threads.map(ask, range(10)))

    assert min(took_s) > 0.9
    assert (in_flight(provider), idle(provider)) == (0, 0)


def test_a_call_is_ended_from_another_thread(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """It fails in its own thread as Cancelled, and the vendor's side sees it go."""
    simulator.fault(label, "hang")
    provider = build(adapter, simulator.url(label))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(provider.complete, request())
        wait_until(lambda: simulator.in_flight(label) == 1, "the call arrives")
        ident = next(thread.ident for thread in threads._threads)

        aborted = transport.abort(ident or 0)

        with pytest.raises(Cancelled, match="ended from our side"):
            waiting.result(180)
    assert aborted
    assert not transport.abort(ident or 0), "nothing is in flight any more"
    wait_until(lambda: simulator.in_flight(label) == 0, "the simulator sees the connection close")


def test_one_attempt_of_a_task_is_aborted_and_the_other_goes_on(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """Two attempts of one task run in two threads; the number says which of them ends."""
    simulator.fault(label, "hang")
    provider = build(adapter, simulator.url(label))

    def attempt(number: int) -> None:
        with abortable_as("t-1", number):
            provider.complete(request())

    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(attempt, number) for number in (1, 2))
        wait_until(lambda: simulator.in_flight(label) == 2, "the calls arrive")

        aborted = transport.abort_attempt("t-1", 1)

        with pytest.raises(Cancelled, match="ended from our side"):
            first.result(180)
        assert aborted
        assert not second.done()
        assert not transport.abort_attempt("t-1", 1), "the attempt is over"
        assert transport.abort_attempt("t-1", 2)
        with pytest.raises(Cancelled):
            second.result(180)


def test_a_call_that_starts_after_its_attempt_was_aborted_sends_nothing(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """An abort may come between the attempt's start and its call; the next attempt is free."""
    provider = build(adapter, simulator.url(label))

    with abortable_as("t-1", 1):
        aborted = transport.abort_attempt("t-1", 1)
        with pytest.raises(Cancelled, match="ended from our side"):
            provider.complete(request())

    assert not aborted, "no call was in flight"
    assert simulator.hits(label) == []
    assert not running
    with abortable_as("t-1", 1):
        assert provider.complete(request()).text


def test_closing_a_provider_ends_its_calls_and_refuses_more(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """At shutdown nobody is at fault, so no breaker may count it; other providers run on."""
    simulator.fault(label, "hang")
    provider, other = (build(adapter, simulator.url(label)) for _ in range(2))
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(provider.complete, request()) for _ in range(3)]
        others = threads.submit(other.complete, request())
        wait_until(lambda: simulator.in_flight(label) == 4, "the calls arrive")

        provider.close()

        for call in waiting:
            with pytest.raises(Cancelled):
                call.result(180)
        assert not others.done()
        assert transport.abort_all() >= 1
        with pytest.raises(Cancelled):
            others.result(180)
    with pytest.raises(Cancelled, match="shutting down"):
        provider.complete(request())


def test_fifty_threads_get_each_their_own_answer(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """And no more connections than calls at once."""
    simulator.settings(label, answer="echo", latency="uniform:0:0.02")
    provider = build(adapter, simulator.url(label))
    prompts = [f"prompt number {n}" for n in range(500)]

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda p: provider.complete(request(p)).text, prompts))

    assert answers == prompts
    assert in_flight(provider) == 0
    assert 1 <= idle(provider) <= 50


def test_a_connection_is_used_again(simulator: Simulator, label: str, build: Build) -> None:
    """The last one first, so that a quiet hour needs few."""
    provider = build("anthropic", simulator.url(label))

    for _ in range(10):
        provider.complete(request())

    assert idle(provider) == 1


@pytest.mark.parametrize("form", ["whole", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 60_000, 70_000, 1_000_000])
def test_a_request_is_sent_whole(size: int, form: str) -> None:
    """Head, body and end arrive in their order, whether they are sent together or not."""
    pieces: list[bytes] = []
    end = b"0\r\n\r\n" if form == "chunked" else b"x" * size

    def take(peer: socket.socket) -> None:
        while not b"".join(pieces).endswith(b"\r\n\r\n" + end if size == 0 else end):
            pieces.append(peer.recv(65536))
        peer.sendall(OK)

    body = b"x" * size
    content = iter([body[: size // 2], body[size // 2 :]]) if form == "chunked" else body
    with listening(take) as address, client(f"http://{address}") as http:
        answer = http.post(f"http://{address}/", content=content)

    head, _, sent = b"".join(pieces).partition(b"\r\n\r\n")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    assert sent.count(b"x") == size
    if size <= 1 and form == "whole":
        assert len(pieces) == 1


def test_a_connection_the_other_side_closed_is_not_used() -> None:
    """Servers hang up on idle connections; that must not cost a call."""
    served = []

    def once(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(OK)
        served.append(peer)

    with listening(once) as address, client(url := f"http://{address}") as http:
        for count in range(1, 4):
            assert http.get(url).text == "ok"
            wait_until(lambda n=count: len(served) == n and served[-1].fileno() == -1, "hung up")

    assert len(served) == 3


def test_an_idle_connection_is_closed_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a peak left behind go while a single one is used on and on."""
    monkeypatch.setattr(transport, "IDLE_S", 0.2)
    with listening(answering) as address, client(url := f"http://{address}") as http:
        gate = threading.Barrier(5)
        with ThreadPoolExecutor(5) as threads:
            list(threads.map(lambda _: (gate.wait(), http.get(url)), range(5)))
        lines = [line for lines in http._transport._pool._idle.values() for line in lines]  # type: ignore[attr-defined]
        sockets = [line.get_extra_info("socket") for line in lines]

        wait_until(lambda: http.get(url) and idle(http) == 1, "one is left")

        assert sum(sock.fileno() == -1 for sock in sockets) == len(sockets) - 1


def test_a_connection_that_came_too_late_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The total time may pass between connecting and the handshake, where nobody holds it."""
    streams = []

    class Slow(type(transport._BACKEND)):  # type: ignore[misc]
        def connect_tcp(self, *arguments: Any) -> Any:
            streams.append(super().connect_tcp(*arguments))
            time.sleep(0.2)  # longer than the call may take
            return streams[0]

    monkeypatch.setattr(transport, "_BACKEND", Slow())
    with listening(silent) as address, client(url := f"https://{address}", total_s=0.1) as http:
        with pytest.raises(httpx2.ConnectTimeout):
            http.get(url)

        assert streams[0].get_extra_info("socket").fileno() == -1


def test_a_timed_out_or_aborted_call_leaves_nothing_behind(
    simulator: Simulator, label: str, build: Build
) -> None:
    """No entry, no connection, no file descriptor."""
    provider = build("anthropic", simulator.url(label))
    simulator.fault(label, "hang")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0

    def ask(number: int) -> None:
        timer = threading.Timer(0.05, transport.abort, (threading.get_ident(),))
        if number % 2:
            timer.start()
        with pytest.raises((ProviderTimeout, Cancelled)):
            provider.complete(request(timeout_s=0.1))
        timer.cancel()

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(ask, range(100)))

    assert (in_flight(provider), idle(provider)) == (0, 0)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 5
    simulator.heal(label)
    assert provider.complete(request()).text


def test_an_abort_that_comes_late_does_not_hit_the_next_call() -> None:
    """A call that is over cannot be ended, though its connection serves the next one."""
    with listening(answering) as address, client(url := f"http://{address}") as http:
        seen = []
        with http.stream("GET", url) as response:
            seen += [call for call in transport._in_flight if call.pool is http._transport._pool]  # type: ignore[attr-defined]
            response.read()
        connection = seen[0].pooled

        aborted = seen[0].abort()

        assert not aborted
        assert http.get(url).text == "ok"
        assert connection.call is not seen[0], "the same connection served both"


def test_connecting_has_a_shorter_time_of_its_own(adapter: str, build: Build) -> None:
    """A TLS handshake that nobody answers ends with connect_s, long before the call's total."""
    with listening(silent) as address:
        provider = build(adapter, f"https://{address}", timeout=_timeout(0.3))

        with pytest.raises(ProviderTimeout, match="no connection in time"):
            provider.complete(request(timeout_s=600))


def test_a_call_over_tls_ends_in_time_and_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same over an encrypted connection; a certificate nobody signed is refused."""
    serving, trusting = _certificate(tmp_path)

    def trickle(peer: socket.socket) -> None:
        with serving.wrap_socket(peer, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
            while True:
                tls.sendall(b"x")
                time.sleep(0.05)

    with listening(trickle) as address:
        url = f"https://localhost:{address.partition(':')[2]}"
        with client(url) as http, pytest.raises(httpx2.ConnectError, match="CERTIFICATE"):
            http.get(url)
        monkeypatch.setattr(transport, "_ssl_context", lambda: trusting)

        with client(url, total_s=0.5) as http, pytest.raises(httpx2.TimeoutException):
            http.get(url)
        me = threading.get_ident()
        with client(url) as http, ThreadPoolExecutor(1) as threads:
            threads.submit(wait_for, lambda: transport.abort(me))
            with pytest.raises(Cancelled):
                http.get(url)

        assert in_flight(http) == 0


def test_what_tls_has_deciphered_already_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of two reads; the socket under it is silent after the first. A request of many."""
    serving, trusting = _certificate(tmp_path)
    body = b"x" * (transport.READ_BYTES + 4_000)

    def answer(peer: socket.socket) -> None:
        with serving.wrap_socket(peer, server_side=True) as tls:
            while data := tls.recv(65536):
                while not data.endswith(b"the end"):
                    data = data[-6:] + tls.recv(65536)
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    monkeypatch.setattr(transport, "_ssl_context", lambda: trusting)
    with listening(answer) as address:
        url = f"https://localhost:{address.partition(':')[2]}"
        with client(url) as http:
            sent = b"y" * 3_000_000 + b"the end"
            assert [http.post(url, content=sent).content for _ in range(3)] == [body] * 3


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_call_that_waits_holds_no_buffer_for_its_answer(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thousand in flight they were 8 MB."""
    asked, answer = threading.Event(), threading.Event()
    serving, trusting = _certificate(tmp_path)

    def late(peer: socket.socket) -> None:
        with serving.wrap_socket(peer, server_side=True) if scheme == "https" else peer as line:
            line.recv(65536)
            asked.set()
            answer.wait(180)
            line.sendall(OK)

    monkeypatch.setattr(transport, "_ssl_context", lambda: trusting)
    with (
        listening(late) as address,
        client("") as http,
        ThreadPoolExecutor(1) as threads,
    ):
        url = f"{scheme}://localhost:{address.partition(':')[2]}"
        tracemalloc.start()
        try:
            waiting = threads.submit(http.get, url)
            assert asked.wait(180)
            time.sleep(0.2)  # it goes on to wait
            held = [each.size for each in tracemalloc.take_snapshot().traces]
        finally:
            tracemalloc.stop()
        answer.set()

        assert waiting.result(180).text == "ok"
    assert transport.READ_BYTES not in [size // 1024 * 1024 for size in held]


def test_a_forked_child_takes_none_of_its_parents_connections(
    simulator: Simulator, label: str, build: Build
) -> None:
    """Shared sockets gave one process another's answer; nor may a child end its parent's calls."""
    simulator.settings(label, answer="echo")
    provider = build("anthropic", simulator.url(label))
    provider.complete(request("the parent's first"))
    assert idle(provider) == 1
    simulator.script(label, [{"latency": "held", "first": 1}])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(provider.complete, request("the parent's second"))
        wait_until(lambda: simulator.in_flight(label) == 1, "a call is in flight")

        child = os.fork()
        if child == 0:
            ended = transport.abort_all()
            answers = [provider.complete(request(f"child {n}")).text for n in range(3)]
            os._exit(0 if (ended, answers) == (0, [f"child {n}" for n in range(3)]) else 1)
        answers = [provider.complete(request(f"parent {n}")).text for n in range(3)]
        simulator.release(label)

        assert waiting.result(180).text == "the parent's second"
    assert answers == [f"parent {n}" for n in range(3)]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(("no_proxy", "through"), [("", True), ("127.0.0.1", False), ("*", False)])
def test_the_proxies_of_the_environment_are_honoured(
    no_proxy: str, through: bool, server: Loopback, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY names who is asked in place of the vendor, NO_PROXY who is not."""
    server.answer(answer_of("anthropic"))
    monkeypatch.setenv("HTTP_PROXY", server.url.replace("//", "//user:secret@"))
    monkeypatch.setenv("NO_PROXY", no_proxy)
    provider = build("anthropic", "http://127.0.0.1:9")

    if through:
        assert provider.complete(request()).text == "hi"
        assert server.asked[0]["path"] == "http://127.0.0.1:9/v1/messages"
        assert server.asked[0]["headers"]["proxy-authorization"].startswith("Basic ")
    else:
        with pytest.raises(ConnectionFailed):
            provider.complete(request())


def test_a_proxy_that_hangs_is_bound_by_the_calls_time(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tunnel to an https address is part of the call."""
    with listening(silent) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        provider = build("anthropic", "https://api.invalid")

        with pytest.raises(ProviderTimeout):
            provider.complete(request(timeout_s=0.5))


def test_a_redirect_is_not_followed(adapter: str, server: Loopback, build: Build) -> None:
    """The key must not go to wherever an answer points."""
    server.answer(b"", 307, location=f"{server.url}/elsewhere")

    with pytest.raises(ProviderError, match="check base_url"):
        build(adapter, server.url).complete(request())

    assert len(server.asked) == 1


def _timeout(connect_s: float) -> Any:
    from tasks.config import Timeout

    return Timeout(connect_s, 30)


def _certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a certificate for localhost; return the server's context and one that trusts it."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "both.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    return serving, ssl.create_default_context(cafile=str(pem))

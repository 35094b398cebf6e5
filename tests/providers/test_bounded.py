"""How much is read of what a provider answers."""

import gzip
import json
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
import pytest

from breakwater import errors
from tasks.providers.http.bounded import MAX_BODY, MAX_ERROR, MAX_EVENT, bounded
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import answer_of, request

KIB, MIB = 1024, 1024 * 1024
STREAMED = {"content_type": "text/event-stream"}


def bomb(size: int, before: bytes = b'{"a": "') -> bytes:
    """Return JSON that inflates to this size and never closes."""
    return gzip.compress(before + b"A" * size, 9)


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are reached sooner."""
    for name, size in (("MAX_BODY", 256), ("MAX_ERROR", 32), ("MAX_EVENT", 32)):
        monkeypatch.setattr(f"tasks.providers.http.bounded.{name}", size * KIB)


@contextmanager
def endless(head: str, opening: bytes, piece: bytes) -> Iterator[tuple[str, threading.Event]]:
    """Serve an answer without an end, and note when the other side hangs up."""
    hung_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(f"HTTP/1.1 {head}\r\n\r\n".encode() + opening)
                while True:
                    connection.sendall(piece)
            hung_up.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", hung_up
        assert hung_up.wait(60)
        thread.join(60)


def test_a_body_that_inflates_is_held_to_the_real_bounds(server: Loopback, build: Build) -> None:
    """16 MiB of an answer."""
    provider = build("openai-chat", server.url)
    server.answer(bomb(32 * MIB), content_encoding="gzip")

    with pytest.raises(errors.GarbledAnswer, match="the answer has more than 16777216 bytes"):
        provider.complete(request())


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("stream", [False, True])
def test_a_body_that_inflates_is_read_so_far(
    stream: bool, adapter: str, server: Loopback, build: Build
) -> None:
    """The answer is of no use, and says nothing against the prompt."""
    kind = STREAMED if stream else {}
    opening = b"data: " if stream else b'{"a": "'
    server.answer(bomb(MIB, opening), content_encoding="gzip", **kind)
    provider = build(adapter, server.url)
    heard = (lambda _: None) if stream else None

    with pytest.raises(errors.GarbledAnswer, match=r"more than (32768|262144) bytes"):
        provider.complete(request(on_delta=heard))


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.InvalidRequest),
        (403, errors.UnknownError),
        (429, errors.RateLimited),
        (500, errors.ServerError),
        (503, errors.Overloaded),
    ],
)
def test_an_error_whose_body_is_too_large_is_read_by_its_status(
    status: int, expected: type, stream: bool, adapter: str, server: Loopback, build: Build
) -> None:
    """The status came first; the body is given up."""
    server.answer(bomb(MIB), status, content_encoding="gzip")
    provider = build(adapter, server.url)
    heard = (lambda _: None) if stream else None

    with pytest.raises(errors.ProviderError) as raised:
        provider.complete(request(on_delta=heard))

    assert type(raised.value) is expected


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize(
    ("head", "opening", "piece", "stream"),
    [
        ("200 OK\r\nContent-Type: application/json", b'{"a": "', b"A" * 65536, False),
        ("500 No\r\nContent-Type: application/json", b'{"a": "', b"A" * 65536, False),
        ("500 No\r\nContent-Type: text/html", b"<", b"A" * 65536, True),
        ("200 OK\r\nContent-Type: text/event-stream", b"data: ", b"A" * 65536, True),
        ("200 OK\r\nContent-Type: text/event-stream", b"", b"data: x\n" * 900, True),
        ("200 OK\r\nContent-Type: text/event-stream", b"", b": ping\n\n" * 900, True),
        ("200 OK\r\nContent-Type: text/plain", b"", b": ping\n\n" * 900, True),
        ("200 OK", b"data: ", b"A" * 65536, True),
        ("200 OK\r\nContent-Type: application/json", b"", b" " * 65536, False),
        ("200 OK\r\nContent-Length: 99999999999\r\nContent-Type: application/json", b"", b"[" * 65536, False),
    ],
)  # fmt: skip
def test_a_body_without_an_end_is_hung_up_on(
    head: str, opening: bytes, piece: bytes, stream: bool, adapter: str, build: Build
) -> None:
    """As fast as it comes, long before the call's time is over."""
    with endless(head, opening, piece) as (url, _):
        provider = build(adapter, url)

        with pytest.raises(errors.ProviderError) as raised:
            provider.complete(request(on_delta=(lambda _: None) if stream else None))
        provider.close()

    expected = errors.ServerError if head.startswith("500") else errors.GarbledAnswer
    assert type(raised.value) is expected
    assert raised.value.verdict.trips


@pytest.mark.parametrize(
    "encoding", ["gzip", "deflate", "raw deflate", "gzip, gzip", "identity", ""]
)
@pytest.mark.parametrize("size", [10, 200 * KIB])
def test_an_answer_within_the_bounds_is_read_whole(
    encoding: str, size: int, adapter: str, server: Loopback, build: Build
) -> None:
    """In every encoding that was asked for."""
    body = json.dumps(answer_of(adapter, "x" * size)).encode()
    raw = zlib.compressobj(wbits=-15)
    encoded = {
        "gzip": gzip.compress(body), "deflate": zlib.compress(body),
        "raw deflate": raw.compress(body) + raw.flush(), "gzip, gzip": gzip.compress(gzip.compress(body)),
    }.get(encoding, body)  # fmt: skip
    said = {"content_encoding": encoding.removeprefix("raw ")} if encoding else {}
    server.answer(encoded, **said)

    completion = build(adapter, server.url).complete(request())

    assert completion.text == "x" * size
    assert server.asked[0]["headers"]["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("encoding", ["br", "gzip"])
@pytest.mark.parametrize(
    ("status", "error"), [(400, "InvalidRequest"), (429, "RateLimited"), (503, "Overloaded")]
)
def test_an_error_that_cannot_be_decoded_is_known_by_its_status(
    status: int, error: str, encoding: str, adapter: str, server: Loopback, build: Build
) -> None:
    """Of a gateway that encodes as nobody asked, or not as it says."""
    server.answer(b"\x8b\x02\x80abc\x03", status, content_encoding=encoding)

    with pytest.raises(errors.ProviderError) as caught:
        build(adapter, server.url).complete(request())

    assert (type(caught.value).__name__, caught.value.status) == (error, status)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip, gzip", "gzip, br"])
def test_an_encoding_that_was_not_asked_for_is_not_read(
    encoding: str, adapter: str, server: Loopback, build: Build
) -> None:
    """What inflates it may not know a bound."""
    server.answer(b"xxxx", content_encoding=encoding)

    with pytest.raises(errors.GarbledAnswer, match="encoded in a way that was not asked for"):
        build(adapter, server.url).complete(request())


def read(body: Any, **headers: str) -> bytes:
    stream = httpx2.ByteStream(body) if isinstance(body, bytes) else Pieces(body)
    status = int(headers.pop("status", "200"))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return bounded(httpx2.Response(status, headers=named, stream=stream)).read()


class Pieces(httpx2.SyncByteStream):
    """A body in pieces as they stand."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


def test_the_bounds_are_exact() -> None:
    """One byte more is too many."""
    assert len(read(b"x" * MAX_BODY)) == MAX_BODY
    assert len(read(b"x" * MAX_ERROR, status="400")) == MAX_ERROR

    with pytest.raises(errors.GarbledAnswer):
        read(b"x" * (MAX_BODY + 1))
    with pytest.raises(errors.GarbledAnswer):
        read(b"x" * (MAX_ERROR + 1), status="400")


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("size", [1, 61, 4_096])
def test_events_are_counted_one_by_one(end: bytes, size: int) -> None:
    """Wherever the pieces of the stream part them."""
    events = (b"data: " + b"x" * 100_000 + end) * 12
    pieces = (
        [events[at : at + size] for at in range(0, len(events), size)] if size > 1 else [events]
    )

    assert read(pieces, content_type="text/event-stream; charset=utf-8") == events

    with pytest.raises(errors.GarbledAnswer, match="an event of the stream"):
        read([*pieces, b"x" * (MAX_EVENT - 3), b"xxxxxxxx"], content_type="text/event-stream")


def test_a_list_of_models_without_an_end_is_given_up(server: Loopback, build: Build) -> None:
    """Each page says that there is another one."""
    models = [{"id": f"m-{n}", "type": "model"} for n in range(1_000)]
    server.answer({"data": models, "has_more": True, "first_id": "m-0", "last_id": "m-999"})

    assert "accepts the key" in build("anthropic", server.url).check()

    assert len(server.asked) == 10

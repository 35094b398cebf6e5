"""Adapters over bytes: the real SDKs on a transport that answers from memory."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tasks.providers import adapter
from tasks.providers.base import Provider
from tests.support.vendors import provider_for


class _Pieces(httpx2.SyncByteStream):
    """A body, cut as the test says."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


class Wire(httpx2.BaseTransport):
    """Answers each request with the same pieces; stands in for the adapters' own transport."""

    def __init__(self, *_: object) -> None:
        self.pieces: Iterable[bytes] = ()
        self.content_type = "text/event-stream"

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        headers = {"content-type": self.content_type}
        return httpx2.Response(200, headers=headers, stream=_Pieces(self.pieces))


@contextmanager
def wired(adapters: Sequence[str]) -> Iterator[dict[str, tuple[Provider, Wire]]]:
    """Build adapters, each over a wire of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "Transport", Wire)
        built: dict[str, Any] = {name: provider_for(name, "http://wire") for name in adapters}
    yield {name: (provider, provider._transport) for name, provider in built.items()}
    for provider in built.values():
        provider.close()


def cut(body: bytes) -> Iterator[list[bytes]]:
    """Cut a body in the ways that chunks may: whole, by the byte, by lines, inside of events."""
    yield [body]
    yield [body[at : at + 1] for at in range(len(body))]
    yield body.splitlines(keepends=True)
    yield [body[at : at + 7] for at in range(0, len(body), 7)]
    yield [body[:-1], b"", body[-1:]]

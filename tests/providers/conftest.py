"""The adapters under test, over the simulator and over a server by hand."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from breaker import Breakers
from simulator.client import Simulator
from tasks.providers.base import Completion, Provider
from tests.support.loopback import Loopback, loopback
from tests.support.vendors import provider_for, request
from tests.support.wires import Wire, wired

Build = Callable[..., Provider]
Answered = Callable[[str, object], Completion]


@pytest.fixture(params=["anthropic", "openai", "openai-chat", "google"])
def adapter(request: pytest.FixtureRequest) -> str:
    """Each adapter in turn."""
    return str(request.param)


@pytest.fixture
def breakers(redis_url: str) -> Iterator[Breakers]:
    """Breakers in an empty Redis."""
    opened = Breakers.from_url(redis_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """One simulator for this test process; tests keep apart by their labels."""
    with Simulator.start() as running:
        yield running


@pytest.fixture
def label() -> str:
    """A simulated provider of this test's own."""
    return f"p-{uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def wires() -> Iterator[dict[str, tuple[Provider, Wire]]]:
    """The four adapters, each over bytes: no socket, and built once."""
    with wired(["anthropic", "google", "openai", "openai-chat"]) as built:
        yield built


@pytest.fixture
def answered(wires: dict[str, tuple[Provider, Wire]]) -> Answered:
    """Return what an adapter makes of an answer: a JSON document, or bytes."""

    def one(adapter: str, answer: object) -> Completion:
        provider, wire = wires[adapter]
        wire.content_type = "application/json"
        wire.pieces = [answer if isinstance(answer, bytes) else json.dumps(answer).encode()]
        return provider.complete(request())

    return one


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server that answers what the test says."""
    with loopback() as served:
        yield served


@pytest.fixture
def build() -> Iterator[Build]:
    """Build adapters over a URL, and close them."""
    built: list[Provider] = []

    def one(adapter: str, url: str, **fields: Any) -> Provider:
        built.append(provider_for(adapter, url, **fields))
        return built[-1]

    yield one
    for provider in built:
        provider.close()

"""One simulator for the session, nothing set in it at the start of a test."""

from collections.abc import Callable, Iterator

import pytest

from simulator.client import Simulator
from tests.support.vendor_sdks import CALLERS, Caller
from tests.support.vendor_talks import TALKS, Talk


@pytest.fixture(scope="session")
def running() -> Iterator[Simulator]:
    with Simulator.start() as simulator:
        yield simulator


@pytest.fixture
def sim(running: Simulator) -> Simulator:
    running.reset()
    return running


@pytest.fixture(params=CALLERS)
def wire(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def call(sim: Simulator, wire: str) -> Callable[..., Caller]:
    """Build the SDK's caller of this wire, by default for the label `it`."""

    def build(label: str = "it", **options: object) -> Caller:
        return CALLERS[wire](sim.url(label), **options)

    return build


@pytest.fixture
def talk(sim: Simulator, wire: str) -> Talk:
    """Ask the label `it` through the SDK of this wire."""
    return TALKS[wire](sim.url("it"))

"""The fleet of the documentation: the roles file that we ship, over a simulator."""

from collections.abc import Iterator

import pytest

from simulator.client import Simulator
from tests.support.fleet import Fleet, fleet
from tests.support.pages import ROOT

KEYS = dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"), "test")


@pytest.fixture(scope="module")
def _simulator_process() -> Iterator[Simulator]:
    with Simulator.start() as running:
        yield running


@pytest.fixture
def simulator(_simulator_process: Simulator) -> Simulator:
    """A healthy simulator with an empty log."""
    _simulator_process.reset()
    return _simulator_process


@pytest.fixture(scope="module")
def _fleet_process(redis_server: str, _simulator_process: Simulator) -> Iterator[Fleet]:
    environ = KEYS | {
        "ANTHROPIC_BASE_URL": _simulator_process.url("claude"),
        "OPENAI_BASE_URL": f"{_simulator_process.url('gpt')}/v1",
        "GOOGLE_GEMINI_BASE_URL": _simulator_process.url("gemini"),
    }
    with fleet(redis_server, (ROOT / "roles.yaml").read_text(), environ) as workers:
        workers.start()
        yield workers


@pytest.fixture
def docs_fleet(_fleet_process: Fleet, simulator: Simulator) -> Fleet:
    """One worker for all tests of a file; it serves every role of roles.yaml."""
    assert simulator.hits() == []
    return _fleet_process

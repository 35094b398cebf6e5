"""The fleet of the documentation: the roles file that we ship, over a simulator."""

from collections.abc import Iterator

import pytest

from simulator.client import Simulator
from tests.support.fleet import Fleet, fleet
from tests.support.pages import ROOT

KEYS = dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"), "test")


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator.start() as running:
        yield running


@pytest.fixture
def docs_fleet(redis_url: str, simulator: Simulator) -> Iterator[Fleet]:
    """One worker that serves every role of roles.yaml."""
    simulator.reset()
    environ = KEYS | {
        "ANTHROPIC_BASE_URL": simulator.url("claude"),
        "OPENAI_BASE_URL": f"{simulator.url('gpt')}/v1",
        "GOOGLE_GEMINI_BASE_URL": simulator.url("gemini"),
    }
    with fleet(redis_url, (ROOT / "roles.yaml").read_text(), environ) as workers:
        workers.start()
        yield workers

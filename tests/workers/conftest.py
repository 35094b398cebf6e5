"""A simulator per test process, empty for every test, and roles over its four wire formats."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.client import Simulator
from tests.support.fleet import KEYS, Fleet, fleet
from tests.support.loopback import Loopback, loopback
from tests.support.vendors import answer_of

HERE = Path(__file__).parent
FOUR_ADAPTERS = {
    "claude": "anthropic",
    "gpt": "openai",
    "local": "openai-chat",
    "gemini": "google",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` runs what is tried on each pool with threads alone, as our image does."""
    for item in items:
        params = getattr(item, "callspec", None)
        if item.path.parent == HERE and params and {"gevent", "prefork"} & {*params.id.split("-")}:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def _simulator_process() -> Iterator[Simulator]:
    with Simulator.start() as running:
        yield running


@pytest.fixture
def simulator(_simulator_process: Simulator) -> Simulator:
    """A healthy simulator with an empty log."""
    _simulator_process.reset()
    return _simulator_process


@pytest.fixture
def adapters(request: pytest.FixtureRequest) -> dict[str, str]:
    """
    The same for all providers, if the test is not marked `four_adapters`.

    Each SDK costs the start of each worker 0.5 to 1.2 s of CPU.
    """
    marked = request.node.get_closest_marker("four_adapters")
    return FOUR_ADAPTERS if marked else dict.fromkeys(FOUR_ADAPTERS, "openai-chat")


@pytest.fixture
def roles(simulator: Simulator, adapters: dict[str, str]) -> str:
    """A role a provider, and one over others."""
    of = {
        name: f"adapter: {adapter}, api_key: {KEYS[name]}, base_url: "
        f'"{simulator.url(name)}{"/v1" if adapter.startswith("openai") else ""}"'
        for name, adapter in adapters.items()
    }
    return f"""
providers:
  claude: {{{of["claude"]}, model: claude-haiku-5-5}}
  gpt: {{{of["gpt"]}, model: gpt-6-luna}}
  local: {{{of["local"]}, model: qwen3}}
  gemini: {{{of["gemini"]}, model: gemini-3.8-flash}}
params: {{max_output_tokens: 100}}
roles:
  clarifier: {{chain: [claude], system: "be curious", params: {{max_output_tokens: 50}}}}
  planner: {{chain: [gpt], params: {{temperature: 0.5}}}}
  coder: {{chain: [local, claude], params: {{temperature: 0}}}}
  reviewer: {{chain: [gemini, {{role: coder}}]}}
"""


@pytest.fixture
def workers(redis_url: str, roles: str) -> Iterator[Fleet]:
    """A fleet over these roles, no worker started yet."""
    with fleet(redis_url, roles) as those:
        yield those


@pytest.fixture
def held(workers: Fleet) -> Iterator[Loopback]:
    """The provider `held`, which answers no call before its gate is opened; the role `slow`."""
    with loopback() as served:
        served.answer(answer_of("openai-chat"))
        served.gate.clear()
        provider = (
            f'held: {{adapter: openai-chat, model: m, api_key: k, base_url: "{served.url}/v1"}}'
        )
        text = workers.roles_file.read_text()
        text = text.replace("providers:\n", f"providers:\n  {provider}\n")
        workers.roles_file.write_text(text + "  slow: {chain: [held]}\n")
        yield served
        workers.stop()

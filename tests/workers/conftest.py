"""A simulator per test process, empty for every test, and roles over its four wire formats."""

from collections.abc import Iterator

import pytest

from simulator.client import Simulator
from tests.support.fleet import KEYS, Fleet, fleet
from tests.support.loopback import Loopback, loopback
from tests.support.vendors import answer_of


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
def roles(simulator: Simulator) -> str:
    """Three roles a provider each, one over all, by all four adapters."""
    return f"""
providers:
  claude: {{adapter: anthropic, model: claude-haiku-5-5, api_key: {KEYS["claude"]}, base_url: "{simulator.url("claude")}"}}
  gpt: {{adapter: openai, model: gpt-6-luna, api_key: {KEYS["gpt"]}, base_url: "{simulator.url("gpt")}/v1"}}
  local: {{adapter: openai-chat, model: qwen3, api_key: {KEYS["local"]}, base_url: "{simulator.url("local")}/v1"}}
  gemini: {{adapter: google, model: gemini-3.8-flash, api_key: {KEYS["gemini"]}, base_url: "{simulator.url("gemini")}"}}
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

"""One worker per module, its simulated providers, and this process as a producer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tasks import app
from tests.support.fleet import KEYS, Fleet, fleet

ADAPTERS = {"claude": "anthropic", "gpt": "openai", "local": "openai-chat", "gemini": "google"}


@dataclass
class House:
    """What a module's tests share: it is running."""

    simulator: Simulator
    workers: Fleet
    redis: Any


def roles_over(simulator: Simulator, adapters: dict[str, str]) -> str:
    """A role a provider, named as it; and the four of a team, whose chains have an alternative."""
    providers = "".join(
        f"  {name}: {{adapter: {adapter}, model: m-{name}, api_key: {KEYS[name]}, "
        f'inputs: [image, document], base_url: "'
        f'{simulator.url(name)}{"/v1" if adapter.startswith("openai") else ""}"}}\n'
        for name, adapter in adapters.items()
    )
    own = "".join(f"  {name}: {{chain: [{name}]}}\n" for name in adapters)
    return f"""
providers:
{providers}
roles:
{own}
  clarifier: {{chain: [local, gpt], system: "You ask what is unclear."}}
  planner: {{chain: [local, gpt]}}
  coder: {{chain: [local, gpt]}}
  reviewer: {{chain: [gpt, local]}}
"""


@pytest.fixture(scope="module")
def adapters() -> dict[str, str]:
    """One SDK for all: each costs the worker's start 0.5 to 1.2 s of CPU."""
    return dict.fromkeys(ADAPTERS, "openai-chat")


@pytest.fixture(scope="module")
def house(redis_server: str, adapters: dict[str, str]) -> Iterator[House]:
    """A simulator, and a worker over it."""
    client: Any = redis.Redis.from_url(redis_server, decode_responses=True)
    client.flushall()
    with (
        Simulator.start() as simulator,
        fleet(redis_server, roles_over(simulator, adapters)) as workers,
    ):
        workers.start(1, "threads", 32)
        yield House(simulator, workers, client)


def documented_skips() -> set[str]:
    """The standard tests that the documentation says are skipped."""
    page = (Path(__file__).parents[2] / "docs" / "langchain.md").read_text()
    return set(re.findall(r"`(test_\w+)`", page.partition("## LangChain's standard tests")[2]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    """Fail a standard test that is skipped and not documented as such, or the other way round."""
    report = yield
    if call.when == "call" and item.cls is not None and item.path.name == "test_standard.py":
        if report.skipped != (item.originalname in documented_skips()):
            report.outcome = "failed"
            report.longrepr = f"skipped: {report.skipped}; docs/langchain.md says otherwise"
    return report


@pytest.fixture(scope="session")
def vcr_config() -> dict[str, Any]:
    """The standard tests' recorder, of which we have no use, leaves our own servers alone."""
    return {"ignore_localhost": True}


@pytest.fixture
def simulator(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """
    Healthy, with an empty log; no breaker remembers anything.

    This process asks: it knows where Redis and the roles are, and no key.
    """
    monkeypatch.setenv("REDIS_URL", house.workers.environ["REDIS_URL"])
    monkeypatch.setenv("ROLES_FILE", house.workers.environ["ROLES_FILE"])
    app.backend.__dict__.pop("client", None)
    house.simulator.reset()
    for key in house.redis.scan_iter("breaker:{*"):
        house.redis.delete(key)
    yield house.simulator
    app.backend.__dict__.pop("client", None)

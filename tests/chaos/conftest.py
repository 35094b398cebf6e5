"""A simulator of one's own, and a fleet over it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tests.support.chaos import roles_over
from tests.support.fleet import Fleet, fleet

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` runs those of a main promise; the others are slow."""
    for item in items:
        if item.path.parent == HERE and not item.get_closest_marker("promise"):
            item.add_marker("slow")


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """Healthy, with an empty log."""
    with Simulator.start(log_size=1_000_000) as running:
        yield running


@pytest.fixture
def workers(redis_url: str, simulator: Simulator) -> Iterator[Fleet]:
    """No worker started yet."""
    with fleet(redis_url, roles_over(simulator)) as those:
        yield those


@pytest.fixture
def client(redis_url: str) -> Any:
    """What an operator would look with."""
    return redis.Redis.from_url(redis_url, decode_responses=True)

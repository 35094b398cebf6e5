"""What the tests of routing share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from kombu import pools

from breaker import Breakers
from tasks import app

ROLES = """
providers:
  local: {adapter: openai-chat, model: m, base_url: "http://127.0.0.1:1/v1", api_key: none}
roles:
  coder: {chain: [local]}
  planner: {chain: [local]}
"""


@pytest.fixture
def breakers() -> Iterator[Breakers]:
    """Breakers of this test alone."""
    shared = Breakers(fakeredis.FakeRedis())
    yield shared
    shared.close()


Use = Callable[[str], None]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Enqueue to this URL from now on; the roles file is known."""
    (tmp_path / "roles.yaml").write_text(ROLES)
    monkeypatch.setenv("ROLES_FILE", str(tmp_path / "roles.yaml"))

    def use(url: str) -> None:
        monkeypatch.setenv("REDIS_URL", url)
        forget()

    yield use
    forget()


@pytest.fixture
def shared(redis_url: str, use: Use) -> Any:
    """An empty server, to which is enqueued."""
    use(redis_url)
    return redis.Redis.from_url(redis_url, decode_responses=True)


def forget() -> None:
    """Forget the connections to another server, which kombu keeps for all that say `redis://`."""
    pools.reset()
    app._after_fork()

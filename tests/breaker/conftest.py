"""One breaker on each storage, and a clock the tests move."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import fakeredis
import pytest
import redis

from breaker.failover import FailoverStorage
from breaker.fleet import Breakers
from breaker.local_storage import LocalStorage
from breaker.redis_storage import RedisStorage, Scripts
from breaker.state import BreakerState, Report, Rules, StorageReply

CLOCK = "test:us"
BEGINNING_US = 1_800_000_000_000_000

# Stands in for Redis' TIME: seconds and microseconds, from a key the test sets.
TIME = f"""(function()
  local us = tonumber(redis.call('GET', '{CLOCK}'))
  return {{math.floor(us / 1000000), us % 1000000}}
end)()"""


def clocked_scripts() -> Scripts:
    packaged = Scripts.packaged()
    sources = {field.name: getattr(packaged, field.name) for field in fields(packaged)}
    assert all(source.count("redis.call('TIME')") == 1 for source in sources.values())
    return Scripts(
        **{name: source.replace("redis.call('TIME')", TIME) for name, source in sources.items()}
    )


@dataclass
class Bench:
    """A breaker named x under test; `redis` is None for the local store."""

    store: Any
    redis: redis.Redis | None
    rules: Rules = Rules()
    us: int = BEGINNING_US
    name: str = "x"

    def tick(self, seconds: float) -> None:
        """Move the store's clock."""
        self.us += round(seconds * 1_000_000)
        if self.redis:
            self.redis.set(CLOCK, self.us)

    def goes_by(self, **numbers: float) -> None:
        self.rules = replace(self.rules, **numbers)

    def admit(self, token: str = "t") -> StorageReply:
        return self.store.admit(self.name, self.rules, token)

    def record(self, token: str, generation: int, outcome: Any, **more: Any) -> StorageReply:
        return self.store.record(self.name, self.rules, Report(token, generation, outcome, **more))

    def run(self, outcome: Any, token: str = "t", **more: Any) -> BreakerState:
        """Make one whole call; it must be admitted."""
        granted = self.admit(token)
        assert granted.accepted
        return self.record(token, granted.view.generation, outcome, **more).view

    def trip(self) -> BreakerState:
        while (view := self.run("failure", reason="Overloaded")).state != "open":
            assert view.failures < self.rules.fail_max
        return view

    def half_open(self, token: str = "a") -> StorageReply:
        """Trip, wait, and take the first probe's lease."""
        self.trip()
        self.tick(self.rules.reset_timeout_s)
        granted = self.admit(token)
        assert granted.view.state == "half-open"
        return granted

    def peek(self) -> BreakerState:
        return self.store.peek(self.name, self.rules)

    def hash(self) -> dict[str, str]:
        assert self.redis
        return {k.decode(): v.decode() for k, v in self.redis.hgetall("breaker:{x}").items()}


def _on_redis(client: redis.Redis) -> Bench:
    client.set(CLOCK, BEGINNING_US)
    return Bench(RedisStorage(client, clocked_scripts()), client)


@pytest.fixture(params=["fakeredis", "server"])
def shared(request: pytest.FixtureRequest) -> Bench:
    """A breaker in Redis, on fakeredis and on a real server."""
    return request.getfixturevalue("shared_" + request.param)


@pytest.fixture(params=["fakeredis", "server", "local", "failover"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A breaker on each storage."""
    if request.param == "failover":
        bench = request.getfixturevalue("shared_fakeredis")
        bench.store = FailoverStorage(bench.store)
        return bench
    if request.param != "local":
        return request.getfixturevalue("shared_" + request.param)
    bench = Bench(None, None)
    bench.store = LocalStorage(clock=lambda: bench.us / 1_000_000)
    return bench


@pytest.fixture
def shared_fakeredis() -> Iterator[Bench]:
    client = fakeredis.FakeRedis()
    yield _on_redis(client)
    client.close()


@pytest.fixture
def shared_server(redis_url: str) -> Iterator[Bench]:
    client = redis.Redis.from_url(redis_url)
    yield _on_redis(client)
    client.close()


@pytest.fixture
def breakers(redis_url: str) -> Iterator[Breakers]:
    """This process's breakers on a real server."""
    breakers = Breakers.from_url(redis_url)
    yield breakers
    breakers.close()

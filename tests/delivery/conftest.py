"""The delivery's scripts on two stores, and a clock the tests move."""

import json
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis

from breakwater.messaging.settlement import Settlement
from tasks.delivery.delivery_store import LEASE_MS, Begun, DeliveryStore, Tended, packaged
from tasks.delivery.waits import Delay, Park

CLOCK = "test:ms"
TIME = f"(function() local ms = tonumber(redis.call('GET', '{CLOCK}')); return {{math.floor(ms / 1000), ms % 1000 * 1000}} end)()"
QUEUE = "role.coder"
OTHER = "role.planner"


class Bench:
    """A store, the queues `role.coder` and `role.planner`, and the time."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis: Any = client
        sources = packaged()
        assert all(source.count("redis.call('TIME')") == 1 for source in sources.values())
        self.store = DeliveryStore(
            client, {name: s.replace("redis.call('TIME')", TIME) for name, s in sources.items()}
        )
        self.ms = 1_800_000_000_000
        self._takes = 0
        self.tick(0)
        self.rest()

    def tick(self, ms: int) -> None:
        """Move the server's clock."""
        self.ms += ms
        self.redis.set(CLOCK, self.ms)

    def rest(self) -> None:
        """Let some worker look often enough that silence counts."""
        for _ in range(4):
            self.store.tend([])
            self.tick(LEASE_MS // 3)
        self.store.tend([])

    def pass_tended(self, ms: int, *tags: str) -> Tended:
        """Let time pass in which some worker looks, and renews these."""
        reply = self.store.tend(tags)
        while ms > 0:
            self.tick(min(ms, 2000))
            ms -= 2000
            reply = self.store.tend(tags)
        return reply

    def push(self, *messages: str, queue: str = QUEUE) -> None:
        for message in messages:
            self.redis.lpush(queue, message)

    def take(
        self, most: int = 1, queues: tuple[str, ...] = (QUEUE, OTHER)
    ) -> list[tuple[str, str]]:
        """Take; the tags and the messages."""
        self._takes += 1
        reply = self.store.take(queues, most, f"w{self._takes}")
        return [(tag, message.decode()) for tag, _, message in reply]

    def take_one(self) -> str:
        ((tag, _),) = self.take()
        return tag

    def waiting(self, queue: str = QUEUE) -> list[str]:
        """What waits, the next to be taken first."""
        return [message.decode() for message in reversed(self.redis.lrange(queue, 0, -1))]

    def begin(self, tag: str, task_id: str = "t") -> Begun:
        return self.store.begin(task_id, tag)

    def settle(self, begun: Begun, tag: str = "", task_id: str = "t", **more: Any) -> str:
        meta = more.pop("meta", '"answer"')
        return self.store.settle(Settlement(task_id, meta, 60, fence=begun.fence, tag=tag, **more))

    def wait(
        self,
        begun: Begun,
        tag: str,
        task_id: str = "t",
        wait: Delay | Park | None = None,
        **how: Any,
    ) -> int:
        how = {"queue": QUEUE, **how}
        return self.store.requeue(task_id, wait or Delay(), fence=begun.fence, tag=tag, **how)

    def parked(self, queue: str = QUEUE) -> Any:
        entry = self.redis.hget("parked", queue)
        return json.loads(entry) if entry else None

    def counted(self, what: str) -> int:
        return int(self.redis.hget("delivery", what) or 0)


@pytest.fixture(params=["fakeredis", "server"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """An empty store."""
    if request.param == "fakeredis":
        yield Bench(fakeredis.FakeRedis(server_type="valkey"))
        return
    client = redis.Redis.from_url(request.getfixturevalue("redis_url"))
    yield Bench(client)
    client.close()

"""A task that the test streams step by step, on a real server, and its readers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import states

from breakwater.asking.events import stream_key
from breakwater.errors import BreakwaterError
from breakwater.messaging.names import RESULT
from breakwater.messaging.settlement import Settlement
from breakwater.redis.connection import client
from tasks import app
from tasks.delivery.delivery_store import DeliveryStore
from tasks.streaming.writer import StreamSender, Writer

QUEUE = "role.coder"

ANSWER = {"provider": "p", "model": "m", "finish_reason": "stop", "tool_calls": []}


class StreamedTask:
    """One task, and the delivery that runs it."""

    def __init__(self, url: str, through: str = "") -> None:
        self.task_id = "t"
        self.redis: Any = redis.Redis.from_url(url)
        self.client = client(through or url)
        self.store = DeliveryStore(self.client)
        self.sender = StreamSender(self.store)
        self.takes = 0

    def begin(self) -> Writer:
        """Deliver the task, and open its stream."""
        self.takes += 1
        self.redis.lpush(QUEUE, json.dumps({"n": self.takes}))
        ((self.tag, _, _),) = self.store.take([QUEUE], 1, f"w{self.takes}")
        begun = self.store.begin(self.task_id, self.tag)
        self.task = dict(begun.task)
        self.fence = begun.fence
        return Writer(self.sender, self.task_id, begun.fence, int(self.task.get("told", 0)))

    def lose(self) -> None:
        """Lose the delivery, as if its worker was killed."""
        self.redis.delete("taken", "taken:until")

    def settle(self, text: str = "", **result: Any) -> None:
        """Settle the task with a text, or with another result."""
        result = {**ANSWER, "task_id": self.task_id, "text": text, **result}
        self._settle(result, states.SUCCESS)

    def fail(self, error: BreakwaterError) -> None:
        """Settle the task with an error."""
        self._settle(error, states.FAILURE)

    def _settle(self, result: Any, state: str) -> None:
        meta = app.backend.meta(self.task_id, result, state)
        assert (
            self.store.settle(
                Settlement(self.task_id, meta, fence=self.fence, tag=self.tag, expires_s=60)
            )
            == "settled"
        )

    def entries(self) -> list[tuple[str, Any]]:
        """What is in the stream: events, and their data."""
        return [
            (fields[b"event"].decode(), json.loads(fields[b"data"] or b"null"))
            for _, fields in self.redis.xrange(stream_key(self.task_id))
        ]

    def is_settled(self) -> bool:
        return bool(self.redis.exists(RESULT + self.task_id))


@pytest.fixture
def streamed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamedTask]:
    """A task that no worker runs but the test."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    app.backend.__dict__.pop("client", None)
    yield StreamedTask(redis_url)
    app.backend.__dict__.pop("client", None)

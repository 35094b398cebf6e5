"""Who waits for a result has it, whatever is heard of it."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import group, states

from tasks import app, complete
from tests.support.fleet import wait_for


@pytest.fixture
def server(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty server, which this process waits at."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    app.backend.__dict__.pop("client", None)
    app.backend.result_consumer.stop()
    app.backend.result_consumer._pubsub = None
    app.backend.result_consumer.subscribed_to.clear()
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()
    app.backend.__dict__.pop("client", None)


def settle_unheard(server: Any, task_id: str, result: Any) -> None:
    """Write a result as if it had been published before anybody's subscription was there."""
    channel = app.backend.get_key_for_task(task_id)
    wait_for(lambda: server.pubsub_numsub(channel)[0][1])
    server.set(channel, app.backend.meta(task_id, result, states.SUCCESS))


def test_a_result_that_was_published_too_early_is_found(server: Any) -> None:
    """The subscription came too late for it, the look before that too early."""
    got: list[Any] = []
    result = complete.delay("coder", "hi")
    waiting = threading.Thread(target=lambda: got.append(result.get(timeout=180)), daemon=True)
    waiting.start()

    settle_unheard(server, result.id, {"text": "here"})
    waiting.join(15)

    assert got == [{"text": "here"}]


def test_so_are_those_of_a_group(server: Any) -> None:
    """All that are there, in one look."""
    got: list[Any] = []
    results = group([complete.s("coder", "a"), complete.s("coder", "b")]).apply_async()
    waiting = threading.Thread(target=lambda: got.extend(results.get(timeout=180)), daemon=True)
    waiting.start()

    for each in results.children:
        settle_unheard(server, each.id, {"text": each.id})
    waiting.join(15)

    assert [each["text"] for each in got] == [each.id for each in results.children]

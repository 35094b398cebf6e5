"""A message as it lies in its list: small, dated by Redis, in its place, and kombu's format still."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from kombu import Connection, pools
from kombu.utils import json as kombu_json

from breakwater.celery_app import app
from breakwater.messaging import amqp
from tasks import complete
from tasks.delivery import envelope

MARK = "\x06\x16"
PROMPTS = {
    "words": "How are you? " * 300,
    "code": 'if x == "a":\n\tprint(f"{x!r}\\n")\n' * 100,
    "quotes": '"' * 4000,
    "backslashes": "\\" * 4000,
    "umlauts": "Wie heißt du, schönes Fräulein?\n" * 100,
    "chinese": "你好吗" * 1000,
    "emoji": "🌊" * 1000,
    "controls": "\x00\x1b[2J\u2028" * 300,
}


@pytest.fixture
def shared(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty server, to which is enqueued."""
    (tmp_path / "roles.yaml").write_text(
        "providers: {a: {adapter: openai-chat, model: m, base_url: 'http://h/v1', api_key: none}}\n"
        "roles: {coder: {chain: [a]}}\n"
    )
    monkeypatch.setenv("ROLES_FILE", str(tmp_path / "roles.yaml"))
    monkeypatch.setenv("REDIS_URL", redis_url)
    pools.reset()
    app._after_fork()
    yield redis.Redis.from_url(redis_url, decode_responses=True)
    pools.reset()
    app._after_fork()


def lists(shared: Any) -> dict[str, int]:
    return {key: shared.llen(key) for key in shared.scan_iter("role.*")}


def test_redis_dates_a_message(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer's clock may be wrong by years."""
    monkeypatch.setattr(amqp.time, "time_ns", lambda: 0)
    before_s = shared.time()[0]

    complete.delay("coder", "alone")
    complete.delay_many([("coder", "many")] * 3)

    for text in shared.lrange("role.coder", 0, -1):
        dated_ms = json.loads(text)["headers"]["breakwater"]["enqueued_ms"]
        assert before_s * 1000 <= dated_ms <= (shared.time()[0] + 1) * 1000


def test_spans_travel_as_spans(shared: Any) -> None:
    """Beside the moments that Celery makes of them, which older workers read."""
    complete.apply_async(("coder", "hi"), countdown=2.5, expires=600)
    complete.delay_many([("coder", "hi")], countdown=2.5, expires=600)
    app.send_task("complete", ("coder", "hi"), countdown=2.5, expires=600, queue="role.coder")
    complete.s("coder", "hi").set(countdown=2.5, expires=600).apply_async()

    for text in shared.lrange("role.coder", 0, -1):
        headers = json.loads(text)["headers"]
        own = headers["breakwater"]
        assert (own["countdown_ms"], own["expires_ms"]) == (2500, 600_000)
        assert headers["eta"] < headers["expires"]
    assert lists(shared) == {"role.coder": 4}


def test_moments_are_no_spans(shared: Any) -> None:
    """An absolute time is what it says."""
    complete.apply_async(
        ("coder", "hi"), eta=app.now().replace(year=2100), expires=app.now().replace(year=2101)
    )

    own = json.loads(shared.lindex("role.coder", 0))["headers"]["breakwater"]
    assert own.keys() == {"enqueued_ms"}


@pytest.mark.parametrize("kind", PROMPTS)
def test_any_celery_client_reads_it(kind: str, shared: Any, redis_url: str) -> None:
    """kombu's own transport, and a worker of ours, find the very prompt."""
    prompt = PROMPTS[kind]
    complete.apply_async(("coder", prompt), task_id="t")
    raw = shared.lindex("role.coder", 0)

    payload = envelope.read(raw.encode())
    envelope.check(payload)
    with Connection(redis_url.partition("?")[0]) as stock:
        message = stock.default_channel.basic_get("role.coder", no_ack=True)

    (role, found), _, canvas = message.payload
    assert (role, found) == ("coder", prompt)
    assert canvas.keys() == {"callbacks", "errbacks", "chain", "chord"}
    assert (message.headers["id"], message.headers["task"]) == ("t", "complete")
    assert json.loads(payload["body"]) == message.payload
    assert len(raw) < 4 / 3 * len(json.dumps(message.payload)) + 1000


@pytest.mark.parametrize("kind", ["words", "umlauts"])
def test_a_waiting_prompt_costs_little_more_than_its_bytes(kind: str, shared: Any) -> None:
    """5,500 bytes for 4 kB, where base64 and empty headers took 6,600."""
    prompt = PROMPTS[kind][:4096].ljust(4096, "x")
    complete.delay_many([("coder", prompt)] * 200)

    each = shared.memory_usage("role.coder", samples=0) / 200

    assert each < 5_500 + len(json.dumps(prompt)) - 4_096


def test_headers_may_hold_what_kombu_can_write(shared: Any) -> None:
    """Times, ids and decimals, which JSON alone has no form for."""
    given = {"at": datetime(2026, 1, 2, tzinfo=UTC), "id": UUID(int=5), "cost": Decimal("1.5")}

    complete.apply_async(("coder", "hi"), headers=given)
    complete.delay_many([("coder", "hi")], headers=given)

    for raw in shared.lrange("role.coder", 0, -1):
        headers = kombu_json.loads(raw)["headers"]
        assert {name: headers[name] for name in given} == given
        assert headers["breakwater"]["enqueued_ms"] > 0


def test_a_default_stands_in_the_middle(shared: Any) -> None:
    """So that something can overtake a backlog, and something can wait behind it."""
    for priority in (None, 9, 6, 5, 3, 2, 0):
        complete.apply_async(("coder", "hi"), priority=priority)
    complete.delay_many([("coder", "hi")] * 2, priority=0)
    complete.delay_many([("coder", "hi")] * 2)

    assert lists(shared) == {
        f"role.coder{MARK}0": 4, f"role.coder{MARK}3": 2, "role.coder": 3,
        f"role.coder{MARK}6": 1, f"role.coder{MARK}9": 1,
    }  # fmt: skip
    assert "priority" not in json.loads(shared.lindex("role.coder", 0))["properties"]


def test_what_counts_a_queue_counts_all_its_lists(shared: Any) -> None:
    """Celery's `purge` and kombu's count know of every priority."""
    for priority in (None, 0, 3, 6, 9):
        complete.apply_async(("coder", "hi"), priority=priority)

    with app.connection_for_write() as connection:
        channel = connection.default_channel
        counted, purged = channel._size("role.coder"), channel._purge("role.coder")

    assert (counted, purged, lists(shared)) == (5, 5, {})

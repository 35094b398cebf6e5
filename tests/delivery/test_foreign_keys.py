"""Keys of ours that another program has taken: named, and nothing is lost or tried for ever."""

from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from breakwater.redis.connection import client as connect
from breakwater.redis.foreign_keys import STEP, foreign, named, types
from tasks.delivery.delivery_store import DeliveryStore
from tasks.delivery.foreign_key_check import LOG_INTERVAL_S, ForeignKeyCheck

KEYS = {
    "taken", "taken:until", "begun", "flights", "delayed", "delayed:messages", "delayed:queues",
    "parked", "parked:events", "paused", "workers", "workers:until", "roles", "roles:until",
    "draining", "queues", "operations", "dead", "dead:messages", "ledger", "delivery",
    "delivery:clock", "workflows", "breakers", "ledger:drainer", "workers:seen",
}  # fmt: skip
OTHERS = {
    "string": ("SET", "x"),
    "set": ("SADD", "x"),
    "list": ("RPUSH", "x"),
    "hash": ("HSET", "x", "x"),
}


def put(client: redis.Redis, key: str, kind: str) -> None:
    """Make a foreign key."""
    command, *words = OTHERS[kind]
    client.execute_command(command, key, *words)


@pytest.fixture
def server(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("REDIS_URL", redis_url)
    return redis.Redis.from_url(redis_url)


def test_the_heads_of_the_scripts_name_every_key_and_its_type() -> None:
    """What is looked for is what is explained there."""
    assert types().keys() >= KEYS
    assert all(
        kind in {"hash", "list", "set", "stream", "string", "zset"} for kind in types().values()
    )


@pytest.mark.parametrize("key", sorted(KEYS))
def test_each_key_of_another_type_is_found(server: Any, key: str) -> None:
    """With its type and with ours."""
    kind = "string" if types()[key] != "string" else "set"
    put(server, key, kind)

    (found,) = foreign(server)

    assert str(found) == f"key {key!r} is a {kind}, and ours is a {types()[key]}"


@pytest.mark.parametrize("kind", OTHERS)
def test_a_database_of_ours_has_none(server: Any, kind: str) -> None:
    """What we write has the types that we expect; queues have theirs."""
    store = DeliveryStore(server)
    server.lpush("role.a", b"message")
    ((tag, _, _, *_),) = [store.take(["role.a"], 1, "w.1")[0]]
    store.begin("t", tag, "role.a")
    store.heartbeat("w", "{}", ["role.a"], version="v", roles="{}")
    assert foreign(server, ["role.a", "celery"]) == []

    put(server, "celery", kind)

    assert [each.key for each in foreign(server, ["role.a", "celery"])] == (
        [] if kind == "list" else ["celery"]
    )


@pytest.mark.parametrize("key", ["paused", "draining", "bell:role.a", "role.b", "celery"])
@pytest.mark.parametrize("kind", ["string", "set"])
def test_prompts_are_taken_all_the_same(server: Any, key: str, kind: str) -> None:
    """A lever that cannot be read is not set; a foreign list has no prompts."""
    put(server, key, kind)
    server.lpush("role.a", b"message")
    store = DeliveryStore(server)

    ((tag, queue, message, *_),) = store.take(["role.b", "celery", "role.a"], 8, "w.1")

    assert (queue, message) == ("role.a", b"message")
    assert store.begin("t", tag, "role.a").verdict == "run"
    assert store.return_all([tag]) == 1


@pytest.mark.parametrize("key", ["taken", "taken:until", "begun"])
def test_no_message_is_lost_where_none_can_be_held(server: Any, key: str) -> None:
    """The take fails before it takes."""
    put(server, key, "string")
    server.lpush("role.a", b"message")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        DeliveryStore(server).take(["role.a"], 8, "w.1")

    assert server.lrange("role.a", 0, -1) == [b"message"]


def test_an_error_names_the_key(server: Any) -> None:
    """Redis says only that some key has another type."""
    put(server, "taken", "list")
    with pytest.raises(redis.ResponseError) as raised:
        server.hset("taken", "a", "b")

    what, step = named(raised.value)

    assert what == "WRONGTYPE: key 'taken' is a list, and ours is a hash"
    assert step == STEP
    assert "BREAKWATER_PREFIX" in step


@pytest.mark.parametrize("key", ["role.a", "_kombu.binding.role.a", "role.a\x06\x163"])
def test_an_error_names_the_key_of_a_queue(server: Any, key: str) -> None:
    """Of those that the step used."""
    put(server, key, "string")

    what, _ = named(redis.ResponseError("WRONGTYPE Operation against a key"), ["role.a"])

    assert f"key {key!r} is a string" in what


def test_other_errors_are_explained_as_before(server: Any) -> None:
    """Nothing is looked for."""
    what, _ = named(redis.OutOfMemoryError("OOM command not allowed"))

    assert what == "it is full (OOM)"


def test_with_a_prefix_the_same_names_are_another_programs(
    server: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is why a prefix helps."""
    put(server, "taken", "string")
    monkeypatch.setenv("BREAKWATER_PREFIX", "mine:")

    with connect(redis_url) as mine:
        assert foreign(mine) == []


def test_a_worker_takes_nothing_while_a_key_that_it_needs_is_foreign(server: Any) -> None:
    """It says so once a minute, and goes on when the key is gone."""
    now = [0.0]
    blocked = ForeignKeyCheck(lambda: now[0])
    put(server, "delayed", "string")

    with capture_logs() as log:
        for _ in range(5):
            assert blocked.is_due
            blocked.look(server, ["role.a"])
            assert blocked.is_on
            now[0] += 2
    assert [each["event"] for each in log] == ["redis.foreign_key"]
    assert log[0]["keys"] == "key 'delayed' is a string, and ours is a zset"

    now[0] += LOG_INTERVAL_S
    with capture_logs() as log:
        blocked.look(server, [])
    assert len(log) == 1
    server.delete("delayed")
    blocked.look(server, [])
    assert not blocked.is_on
    assert not blocked.is_due


def test_a_foreign_lever_is_named_and_stops_nothing(server: Any) -> None:
    """Prompts are served without it."""
    blocked = ForeignKeyCheck()
    put(server, "workers", "string")

    with capture_logs() as log:
        blocked.look(server, [])

    assert not blocked.is_on
    assert log[0]["what"] == "prompts are served"


def test_a_refusal_is_logged_in_redis_own_words_once(server: Any) -> None:
    """And makes the worker look at its keys."""
    blocked = ForeignKeyCheck(lambda: 0.0)
    blocked.look(server, [])
    assert not blocked.is_due

    with capture_logs() as log:
        for _ in range(3):
            blocked.refused(redis.ResponseError("ERR something odd"))

    assert blocked.is_due
    assert [(each["event"], each["why"]) for each in log] == [
        ("redis.refused", "ResponseError: ERR something odd")
    ]

"""A prefix for every key: what is sent, what is read, and which prefixes are refused."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import NoScriptError

from breaker.fleet import Breakers
from breakwater.errors import ConfigError
from breakwater.messaging.outbox import Letter, put, put_script
from breakwater.messaging.settlement import Settlement
from breakwater.redis.address import Address
from breakwater.redis.connection import async_client, client
from breakwater.redis.prefix import Prefixer, prefix
from tasks.delivery.delivery_store import DeliveryStore
from tasks.delivery.worker_transport import Channel
from tasks.operations.fleet import Fleet

COMMANDS = """
    GET k                               -> GET p:k
    PING                                -> PING
    CONFIG GET save                     -> CONFIG GET save
    CLIENT SETINFO LIB-NAME k           -> CLIENT SETINFO LIB-NAME k
    HSET k f v                          -> HSET p:k f v
    PUBLISH channel message             -> PUBLISH p:channel message
    DEL a b                             -> DEL p:a p:b
    MGET a b                            -> MGET p:a p:b
    SUBSCRIBE a b                       -> SUBSCRIBE p:a p:b
    PSUBSCRIBE a.*                      -> PSUBSCRIBE p:a.*
    BRPOP a b 1                         -> BRPOP p:a p:b 1
    LMOVE a b LEFT RIGHT                -> LMOVE p:a p:b LEFT RIGHT
    XREAD COUNT 1 STREAMS a b 0 0       -> XREAD COUNT 1 STREAMS p:a p:b 0 0
    XADD k * streams v                  -> XADD p:k * streams v
    SCAN 0                              -> SCAN 0 MATCH p:*
    SCAN 0 MATCH role.* COUNT 9         -> SCAN 0 MATCH p:role.* COUNT 9
    MEMORY USAGE k                      -> MEMORY USAGE p:k
    OBJECT ENCODING k                   -> OBJECT ENCODING p:k
    WATCH a b                           -> WATCH p:a p:b
    EXEC                                -> EXEC
"""


@pytest.fixture
def kept_apart(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[str]:
    """A server whose only user may touch nothing outside the prefix `p:`; yields its URL."""
    monkeypatch.setenv("BREAKWATER_PREFIX", "p:")
    admin = redis.Redis.from_url(redis_url)
    admin.execute_command(
        "ACL", "SETUSER", "app", *["on", ">pw", "+@all", "~p:*", "&p:*", "&p:pat*"]
    )
    yield redis_url.replace("redis://", "redis://app:pw@")
    admin.execute_command("ACL", "DELUSER", "app")


@pytest.mark.parametrize("line", COMMANDS.strip().splitlines())
def test_a_command_gets_the_prefix_before_each_key(line: str) -> None:
    """And before nothing else."""
    given, wanted = (part.split() for part in line.split("->"))

    found = Prefixer("p:").command(tuple(given))

    assert list(found) == wanted


def test_keys_may_be_bytes_and_commands_of_two_words_one() -> None:
    """As redis-py sends them."""
    prefixer = Prefixer("p:")

    assert prefixer.command((b"GET", b"k")) == (b"GET", b"p:k")
    assert prefixer.command(("MEMORY USAGE", "k")) == ("MEMORY USAGE", "p:k")
    assert prefixer.command(("CONFIG GET", "save")) == ("CONFIG GET", "save")


def test_a_command_whose_keys_are_not_known_is_refused() -> None:
    """It could reach another program's keys."""
    with pytest.raises(redis.DataError, match="GEOADD cannot be sent: its keys are not known"):
        Prefixer("p:").command(("GEOADD", "k", "1", "2", "m"))


@pytest.mark.parametrize(
    "bad", ["with space", "br{ace}", "star*", "q?", "new\nline", "ä:", "x" * 65, "quote'", "[a]"]
)
def test_a_prefix_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    """By everything that would connect, before it does."""
    monkeypatch.setenv("BREAKWATER_PREFIX", bad)

    with pytest.raises(ConfigError, match="BREAKWATER_PREFIX must be 1 to 64 letters, digits"):
        client()
    with pytest.raises(ValueError, match="such as team-a:"):
        Breakers.from_url()


@pytest.mark.parametrize("bad", ["role.", "task:", "breaker:", "celery", "_kombu.binding.", "/0."])
def test_a_prefix_that_begins_like_our_own_keys_is_refused(
    monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """A fleet without a prefix could have such a key."""
    monkeypatch.setenv("BREAKWATER_PREFIX", bad)

    with pytest.raises(ValueError, match="must not begin like a key of a fleet without a prefix"):
        prefix()


def test_without_a_prefix_the_connections_are_redis_pys_own(redis_url: str) -> None:
    """So that it costs nothing."""
    assert Address.of(redis_url).pool().connection_class is redis.Connection


def test_replies_have_no_prefix(kept_apart: str) -> None:
    """Who reads the name of a key reads it as its owner spells it."""
    with client(kept_apart) as mine:
        mine.xadd("entries", {"a": "1"})
        mine.lpush("list", "value")

        assert sorted(mine.scan_iter()) == [b"entries", b"list"]
        assert list(mine.scan_iter("li*")) == [b"list"]
        assert mine.xread({"entries": "0"})[0][0] == b"entries"  # type: ignore[index]
        assert list(mine.brpop(["list"], 1)) == [b"list", b"value"]  # type: ignore[misc, arg-type]


def test_what_is_published_is_heard_by_its_plain_name(kept_apart: str) -> None:
    """By channel and by pattern."""
    with client(kept_apart) as mine, mine.pubsub(ignore_subscribe_messages=True) as ear:
        ear.subscribe("plain")
        ear.psubscribe("pat*")
        for _ in range(2):
            ear.get_message(timeout=60)
        mine.publish("plain", "p:1")
        mine.publish("pattern", "2")

        heard = [ear.get_message(timeout=60) for _ in range(2)]

    assert [(each["channel"], each["data"]) for each in heard] == [
        (b"plain", b"p:1"), (b"pattern", b"2"),
    ]  # fmt: skip


def test_scripts_see_no_prefix_and_touch_nothing_without_it(kept_apart: str) -> None:
    """Neither by KEYS nor by the keys that they build."""
    source = "redis.call('SET', KEYS[1] .. ':x', KEYS[1]) return redis.call('MGET', 'a:x', 'b')"
    with client(kept_apart) as mine:
        script = mine.register_script(source)

        first, again = script(keys=["a"]), script(keys=["a"])
        whole = mine.eval(source, 1, "a")
        mine.script_flush()
        after = script(keys=["a"])

    assert first == again == whole == after == [b"a", None]


def test_a_script_that_a_fleet_without_a_prefix_has_loaded_is_not_run(
    kept_apart: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server keeps scripts for all clients; the plain one would read and write that fleet's keys."""
    monkeypatch.setattr(Prefixer, "_scripts", {})  # as in a process that has just started
    with redis.Redis.from_url(redis_url) as other:
        other.hset("workers", "theirs", "{}")
        loaded = other.script_load("return redis.call('HKEYS', 'workers')")
        DeliveryStore(other).script("look")(args=["celery"])

        with client(kept_apart) as mine:
            script = mine.register_script("return redis.call('HKEYS', 'workers')")
            assert script.sha == loaded
            assert mine.script_exists(loaded) == [False]
            with pytest.raises(NoScriptError):
                mine.evalsha(loaded, 0)
            assert script() == script() == []
            assert mine.script_exists(loaded) == [True]
            assert Fleet(mine).snapshot().workers == []


def test_the_delivery_works_within_the_prefix(kept_apart: str, redis_url: str) -> None:
    """Put, take, begin, settle: all scripts, over a user who may touch nothing else."""
    with client(kept_apart) as mine:
        put(put_script(mine), [Letter("role.x", "role.x", "message")])
        store = DeliveryStore(mine)
        ((tag, queue, message),) = store.take(["role.x"], 1, "w.1")
        fence = store.begin("t", tag, "role.x").fence
        settled = store.settle(Settlement("t", "{}", fence=fence, tag=tag, expires_s=60))

    assert (queue, message, settled) == ("role.x", b"message", "settled")
    keys = redis.Redis.from_url(redis_url).keys("*")
    assert b"p:celery-task-meta-t" in keys
    assert all(key.startswith(b"p:") for key in keys), keys


def test_breakers_work_within_the_prefix(kept_apart: str, redis_url: str) -> None:
    """Their keys keep their Cluster slot, and their changes are published."""
    breakers = Breakers.from_url(kept_apart, timeout_s=5)
    breakers.get("claude").open()

    states = [(each.name, each.state) for each in breakers.peek_all()]
    keys = redis.Redis.from_url(redis_url).keys("*")

    assert states == [("claude", "open")]
    assert sorted(keys) == [b"p:breaker:{claude}", b"p:breaker:{claude}:events", b"p:breakers"]


def test_readers_in_an_event_loop_use_it_too(
    kept_apart: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams are read so."""
    monkeypatch.setenv("REDIS_URL", kept_apart)
    with client(kept_apart) as mine:
        mine.xadd("stream:x", {"a": "1"})

    async def read() -> Any:
        async with async_client() as reader:
            return await reader.xread({"stream:x": "0"})

    found = asyncio.run(read())

    name = next(iter(found)) if isinstance(found, dict) else found[0][0]
    assert name == b"stream:x"


def test_kombu_sweeps_only_its_own_bindings(kept_apart: str, redis_url: str) -> None:
    """Its script gets the beginnings of keys as arguments."""
    from kombu.transport.redis import SWEEP_BINDINGS

    admin = redis.Redis.from_url(redis_url)
    for before in ("", "p:"):
        admin.zadd(f"{before}_kombu.binding_deadlines", {"x": 1})
        admin.sadd(f"{before}_kombu.binding.x", "member")
    arguments = ["_kombu.binding.", "_kombu.binding_permanent.", 10]

    with client(kept_apart) as mine:
        mine.register_script(SWEEP_BINDINGS)(["_kombu.binding_deadlines"], arguments)

    assert admin.exists("_kombu.binding.x")
    assert not admin.exists("p:_kombu.binding.x")
    assert Channel.keyprefix_queue % "x" == "_kombu.binding.x"

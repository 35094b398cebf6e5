"""
Find keys with our names that another program uses: Redis reports WRONGTYPE, but not for which key.

The heads of the Lua files explain each key and its type. `redis-cli TYPE KEY` shows the actual
type.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import cast

import redis
from redis.exceptions import RedisError

from breakwater.redis.connection import client as connect
from breakwater.redis.connection import explain
from breakwater.redis.text import to_text

HEADS = (("breakwater.messaging", "delivery.lua"), ("breakwater.workflows", "workflow.lua"))
ROW = re.compile(r"^-- ([a-z]+(?::[a-z]+)*) +(hash|list|set|stream|string|zset) ", re.MULTILINE)
"""A row of such a head: a key without an id in its name, and its type."""
MORE = {"breakers": "set", "ledger:drainer": "string", "workers:seen": "string"}
OPERATOR_KEYS = frozenset({
    "paused", "draining", "workers", "workers:until", "roles", "roles:until", "queues",
    "operations", "workflows", "breakers", "ledger:drainer", "workers:seen",
})  # fmt: skip
"""Workers serve prompts even if these keys cannot be used."""
PRIORITIES = ("", "\x06\x163", "\x06\x166", "\x06\x169")
STEP = (
    "another program uses this database: set BREAKWATER_PREFIX, or another database in REDIS_URL, "
    "everywhere; or rename that key"
)
ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Foreign:
    """A key with one of our names, but of another type."""

    key: str
    type: str
    ours: str

    def __str__(self) -> str:
        """Return a sentence that names the key and both types."""
        return f"key {self.key!r} is a {self.type}, and ours is a {self.ours}"

    @property
    def stops(self) -> bool:
        """Whether this key stops workers from serving prompts."""
        return self.key not in OPERATOR_KEYS and not self.key.startswith(
            ("bell:", "role.", "_kombu")
        )


@cache
def types() -> Mapping[str, str]:
    """Return the types of the keys without an id in their names."""
    known = dict(MORE)
    for package, name in HEADS:
        source = (files(package) / "scripts" / name).read_text()
        known |= dict(ROW.findall(source))
    return known


def of_queue(queue: str) -> dict[str, str]:
    """Return the types of a queue's keys."""
    lists = dict.fromkeys((f"{queue}{mark}" for mark in PRIORITIES), "list")
    return {**lists, f"bell:{queue}": "list", f"_kombu.binding.{queue}": "set"}


def foreign(client: redis.Redis, queues: Iterable[str] = ()) -> list[Foreign]:
    """
    Find keys of another program with our names, in one round trip.

    Raises:
        RedisError: Redis does not answer.
    """
    expected = dict(types())
    for queue in queues:
        expected |= of_queue(queue)
    pipe = client.pipeline(transaction=False)
    for key in expected:
        pipe.type(key)
    actual = [to_text(each) for each in cast("list[bytes]", pipe.execute())]
    return [
        Foreign(key, type_, ours)
        for (key, ours), type_ in zip(expected.items(), actual, strict=True)
        if type_ not in {"none", ours}
    ]


def named(error: BaseException, queues: Iterable[str] = ()) -> tuple[str, str]:
    """
    Return the meaning of a Redis error and the next step; for a wrong type, also name the key.

    Args:
        queues: Queues whose keys may be at fault, besides the keys without an id.
    """
    meaning, step = explain(error)
    if "WRONGTYPE" not in str(error):
        return meaning, step
    with suppress(RedisError, OSError), connect(answer_s=ANSWER_S) as client:
        if keys := foreign(client, queues):
            return f"WRONGTYPE: {'; '.join(map(str, keys))}", STEP
    return meaning, step

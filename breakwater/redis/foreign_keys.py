"""
Keys of ours that belong to another program: Redis says WRONGTYPE, and not of which key.

The types are those at the heads of the Lua files, where each key is explained. `redis-cli TYPE KEY`
shows the same.
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
"""A row of such a head: a key without an id in it, and its type."""
MORE = {"breakers": "set", "ledger:drainer": "string", "workers:seen": "string"}
LEVERS = frozenset({
    "paused", "draining", "workers", "workers:until", "roles", "roles:until", "queues",
    "operations", "workflows", "breakers", "ledger:drainer", "workers:seen",
})  # fmt: skip
"""Keys without which prompts are served all the same."""
PRIORITIES = ("", "\x06\x163", "\x06\x166", "\x06\x169")
STEP = (
    "another program uses this database: set BREAKWATER_PREFIX, or another database in REDIS_URL, "
    "everywhere; or rename that key"
)
ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Foreign:
    """A key of ours that has another type."""

    key: str
    type: str
    ours: str

    def __str__(self) -> str:
        """Say what it is."""
        return f"key {self.key!r} is a {self.type}, and ours is a {self.ours}"

    @property
    def stops(self) -> bool:
        """Whether no prompt can be served because of it."""
        return self.key not in LEVERS and not self.key.startswith(("bell:", "role.", "_kombu"))


@cache
def types() -> Mapping[str, str]:
    """Return the types of the keys that have no id in them."""
    found = dict(MORE)
    for package, name in HEADS:
        source = (files(package) / "scripts" / name).read_text()
        found |= dict(ROW.findall(source))
    return found


def of_queue(queue: str) -> dict[str, str]:
    """Return the types of a queue's keys."""
    lists = dict.fromkeys((f"{queue}{mark}" for mark in PRIORITIES), "list")
    return {**lists, f"bell:{queue}": "list", f"_kombu.binding.{queue}": "set"}


def foreign(client: redis.Redis, queues: Iterable[str] = ()) -> list[Foreign]:
    """
    Look for keys of another program among ours, in one round trip.

    Raises:
        RedisError: Redis does not answer.
    """
    expected = dict(types())
    for queue in queues:
        expected |= of_queue(queue)
    pipe = client.pipeline(transaction=False)
    for key in expected:
        pipe.type(key)
    found = [to_text(each) for each in cast("list[bytes]", pipe.execute())]
    return [
        Foreign(key, type_, ours)
        for (key, ours), type_ in zip(expected.items(), found, strict=True)
        if type_ not in {"none", ours}
    ]


def named(error: BaseException, queues: Iterable[str] = ()) -> tuple[str, str]:
    """
    Say what an error of Redis means, and what to do, as `explain`; of a wrong type, of which key.

    Args:
        queues: Whose keys may be the ones, beside those without an id.
    """
    what, step = explain(error)
    if "WRONGTYPE" not in str(error):
        return what, step
    with suppress(RedisError, OSError), connect(answer_s=ANSWER_S) as client:
        if found := foreign(client, queues):
            return f"WRONGTYPE: {'; '.join(map(str, found))}", STEP
    return what, step

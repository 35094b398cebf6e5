"""
A prefix for every key and channel, so that several programs can share one Redis database.

`BREAKWATER_PREFIX` (default: none) is added when a connection writes a command, and removed when it
reads a reply. No other module knows the prefix: each uses its keys as the tables of keys list them.
The sources of Lua scripts pass through the connection too. Each gets a preamble
(`scripts/prefix.lua`), which adds the prefix to the keys that a script builds itself. Without a
prefix nothing here runs: the connections are redis-py's own.

Source of the positions of keys: redis.io/docs/latest/develop/reference/key-specs.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from redis.exceptions import DataError

VARIABLE = "BREAKWATER_PREFIX"
ALLOWED = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
"""No braces (they choose a Cluster slot) and no wildcards (a user's ACL and SCAN read those)."""
OURS = (
    "role.", "roles:", "apart:", "bell:", "task:", "asked:", "stream:", "cache:", "foreign:",
    "flight:", "workflow:", "breaker:", "ledger:", "taken:", "delayed:", "parked:", "dead:",
    "workers:", "delivery:", "celery", "_kombu.", "/",
)  # fmt: skip
"""The beginnings of keys without a prefix; as a prefix, these would mix the keys of two fleets."""


def prefix() -> str:
    """
    Return the prefix of all keys and channels; empty if there is none.

    Raises:
        ValueError: The prefix is not valid; the message says what is allowed.
    """
    value = os.environ.get(VARIABLE, "")
    if value and not ALLOWED.fullmatch(value):
        raise ValueError(
            f"{VARIABLE} must be 1 to 64 letters, digits and any of _ . : / -, such as team-a:"
        )
    if value.startswith(OURS):
        raise ValueError(
            f"{VARIABLE} must not begin like a key of a fleet without a prefix "
            f"({', '.join(OURS)}); use a name of your own, such as team-a:"
        )
    return value


def _words(text: str) -> list[str]:
    return text.split()


POSITIONS: Mapping[str, slice] = {
    **dict.fromkeys(_words("""
        ACL AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DBSIZE DISCARD ECHO EXEC FAILOVER
        FLUSHALL FLUSHDB HELLO INFO LASTSAVE LATENCY LOLWUT MODULE MONITOR MULTI PING QUIT READONLY
        READWRITE RESET ROLE SAVE SELECT SENTINEL SHUTDOWN SLOWLOG SWAPDB TIME UNWATCH WAIT WAITAOF
    """), slice(0, 0)),
    **dict.fromkeys(_words("""
        APPEND BITCOUNT DECR DECRBY DUMP EXPIRE EXPIREAT EXPIRETIME GET GETDEL GETEX GETRANGE GETSET
        HDEL HEXISTS HEXPIRE HGET HGETALL HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPEXPIRE
        HRANDFIELD HSCAN HSET HSETNX HSTRLEN HVALS INCR INCRBY INCRBYFLOAT LINDEX LINSERT LLEN LPOP
        LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PSETEX PTTL
        PUBLISH RESTORE RPOP RPUSH RPUSHX SADD SCARD SET SETEX SETNX SETRANGE SISMEMBER SMEMBERS
        SMISMEMBER SPOP SPUBLISH SRANDMEMBER SREM SSCAN STRLEN TTL TYPE XACK XADD XCLAIM XDEL XLEN
        XPENDING XRANGE XREVRANGE XTRIM ZADD ZCARD ZCOUNT ZINCRBY ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN
        ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK
        ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
    """), slice(0, 1)),
    **dict.fromkeys(_words("""
        DEL EXISTS MGET PFCOUNT PSUBSCRIBE PUNSUBSCRIBE SDIFF SINTER SSUBSCRIBE SUBSCRIBE SUNION
        SUNSUBSCRIBE TOUCH UNLINK UNSUBSCRIBE WATCH
    """), slice(0, None)),
    **dict.fromkeys(_words("COPY LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE"), slice(0, 2)),
    **dict.fromkeys(_words("BLPOP BRPOP BZPOPMAX BZPOPMIN"), slice(0, -1)),
    **dict.fromkeys(_words("MEMORY OBJECT XGROUP XINFO"), slice(1, 2)),
}  # fmt: skip
"""The positions of keys and channels after a command; `Prefixer` has more commands."""
Word = Any
"""A word of a command, or a part of a reply: text, bytes, a number, or a list of these."""


class Prefixer:
    """
    Rewrite the commands and replies of one connection.

    Args:
        prefix: Not empty.
    """

    _scripts: ClassVar[dict[str, str]] = {}
    """For all connections: SHA-1 of a script, and the prefix -> SHA-1 of the loaded script."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._bytes = prefix.encode()
        self._rest: Mapping[str, Callable[[list[Word]], list[Word]]] = {
            "EVAL": self._eval, "EVALSHA": self._evalsha, "SCAN": self._scan,
            "SCRIPT": self._script, "XREAD": self._xread, "XREADGROUP": self._xread,
        }  # fmt: skip
        self._readers: Mapping[str, Callable[[Word], Word]] = {
            **dict.fromkeys(("BLPOP", "BRPOP", "BZPOPMAX", "BZPOPMIN"), self._popped),
            **dict.fromkeys(("XREAD", "XREADGROUP"), self._entries),
            **dict.fromkeys((name for name in POSITIONS if "SUBSCRIBE" in name), self._published),
            "SCAN": self._page,
        }
        self._reader: Callable[[Word], Word] | None = None

    def command(self, words: tuple[Word, ...]) -> tuple[Word, ...]:
        """
        Return a command with the prefix before each of its keys.

        Raises:
            redis.DataError: The positions of this command's keys are unknown.
        """
        head, *arguments = words
        name, *subcommand = _upper(head).split()  # redis-py sends CONFIG GET as one word
        if name != "PING":  # a health check on a connection with subscriptions
            self._reader = self._readers.get(name)
        arguments = [*subcommand, *arguments]
        if name in self._rest:
            arguments = self._rest[name](arguments)
        elif name in POSITIONS:
            arguments = self._prefixed(arguments, POSITIONS[name])
        else:
            raise DataError(f"with {VARIABLE} set, {name} cannot be sent: its keys are not known")
        return head, *arguments[len(subcommand) :]

    def reply(self, reply: Word) -> Word:
        """Return a reply to the last command, or a published message, without the prefix."""
        if not reply or self._reader is None:
            return reply
        return self._reader(reply)

    def _prefixed(self, words: list[Word], where: slice) -> list[Word]:
        words[where] = map(self._with_prefix, words[where])
        return words

    def _with_prefix(self, key: Word) -> str | bytes:
        if isinstance(key, bytes):
            return self._bytes + key
        return f"{self.prefix}{key}"

    def _eval(self, words: list[Word]) -> list[Word]:
        return self._with_keys([self._loaded(words[0]), *words[1:]])

    def _evalsha(self, words: list[Word]) -> list[Word]:
        return self._with_keys([self._sha(words[0]), *words[1:]])

    def _with_keys(self, words: list[Word]) -> list[Word]:
        return self._prefixed(words, slice(2, 2 + int(words[1])))

    def _script(self, words: list[Word]) -> list[Word]:
        subcommand, *rest = words
        change = {"LOAD": self._loaded, "EXISTS": self._sha}.get(_upper(subcommand))
        if change:
            rest = list(map(change, rest))
        return [subcommand, *rest]

    def _loaded(self, source: Word) -> str:
        """Return a script's source with the preamble, and remember its SHA-1."""
        text = _text(source)
        whole = preamble(self.prefix) + text
        loaded = _sha1(whole)
        self._scripts[_sha1(text) + self.prefix] = loaded
        self._scripts[loaded + self.prefix] = loaded  # redis-py uses the reply of SCRIPT LOAD
        return whole

    def _sha(self, sha: Word) -> str:
        """
        Return the SHA-1 of the script with its preamble.

        A server keeps one set of scripts for all databases and clients. Another fleet may have
        loaded this script without a prefix, and the plain SHA-1 would run it on that fleet's keys.
        For a script that this process has not loaded yet, return a name that no script has: the
        server then answers NOSCRIPT, and the caller loads the script.
        """
        known = _text(sha) + self.prefix
        return self._scripts.get(known) or _sha1(known)

    def _scan(self, words: list[Word]) -> list[Word]:
        for index, word in enumerate(words[1:], 1):
            if _upper(word) == "MATCH":
                return self._prefixed(words, slice(index + 1, index + 2))
        return [*words, "MATCH", f"{self.prefix}*"]

    def _xread(self, words: list[Word]) -> list[Word]:
        first = [_upper(word) for word in words].index("STREAMS") + 1
        return self._prefixed(words, slice(first, first + (len(words) - first) // 2))

    def _entries(self, reply: Word) -> Word:
        if isinstance(reply, dict):  # RESP3
            return {self._bare(name): entries for name, entries in reply.items()}
        return [[self._bare(name), *entries] for name, *entries in reply]

    def _page(self, reply: Word) -> Word:
        cursor, keys = reply
        return [cursor, [self._bare(key) for key in keys]]

    def _popped(self, reply: Word) -> Word:
        key, *value = reply
        return [self._bare(key), *value]

    def _published(self, reply: Word) -> Word:
        """Read `message`, channel, data; or `pmessage`, pattern, channel, data; and so on."""
        if not isinstance(reply, list):
            return reply
        kind, *channels, data = reply
        return [kind, *map(self._bare, channels), data]

    def _bare(self, key: Word) -> Word:
        if isinstance(key, bytes):
            return key.removeprefix(self._bytes)
        if isinstance(key, str):
            return key.removeprefix(self.prefix)
        return key


class _Packer:
    """redis-py's packer of commands, with the prefix."""

    def __init__(self, packer: Word, prefixer: Prefixer) -> None:
        self._packer = packer
        self._prefixer = prefixer

    def pack(self, *words: Word) -> Word:
        return self._packer.pack(*self._prefixer.command(words))


def prefixed(kind: type, with_prefix: str) -> type:
    """
    Return a subclass of a redis-py connection, sync or async, that adds a prefix to keys.

    Args:
        with_prefix: The prefix; if empty, the class itself is returned.
    """
    if not with_prefix:
        return kind
    if kind.__module__.startswith("redis.asyncio"):
        return _async(kind, with_prefix)
    return _sync(kind, with_prefix)


def _sync(kind: type, with_prefix: str) -> type:
    class Prefixed(kind):  # type: ignore[misc]
        def _construct_command_packer(self, packer: Word) -> Word:
            self._prefixer = Prefixer(with_prefix)
            return _Packer(super()._construct_command_packer(packer), self._prefixer)

        def read_response(self, *args: Word, **kwargs: Word) -> Word:
            return self._prefixer.reply(super().read_response(*args, **kwargs))

    return Prefixed


def _async(kind: type, with_prefix: str) -> type:
    class Prefixed(kind):  # type: ignore[misc]
        def __init__(self, *args: Word, **kwargs: Word) -> None:
            self._prefixer = Prefixer(with_prefix)
            super().__init__(*args, **kwargs)

        def pack_command(self, *words: Word) -> Word:
            return super().pack_command(*self._prefixer.command(words))

        async def read_response(self, *args: Word, **kwargs: Word) -> Word:
            return self._prefixer.reply(await super().read_response(*args, **kwargs))

    return Prefixed


@cache
def preamble(with_prefix: str) -> str:
    """Return the preamble of all Lua scripts; it is one line, so that line numbers stay right."""
    source = (files("breakwater.redis") / "scripts" / "prefix.lua").read_text()
    lines = [line.split("-- ")[0].strip() for line in source.splitlines()]
    return " ".join(filter(None, lines)).replace("PREFIX", f"'{with_prefix}'") + " "


def _text(word: Word) -> str:
    if isinstance(word, bytes):
        return word.decode()
    return str(word)


def _upper(word: Word) -> str:
    return _text(word).upper()


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

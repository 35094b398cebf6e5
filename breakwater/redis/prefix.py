"""
A prefix for every key and channel, so that several programs can share one Redis database.

`BREAKWATER_PREFIX` (default: none) is added where commands are written to a connection, and removed
where replies are read. No other module knows the prefix: each owner spells its keys as the tables
of keys do. The sources of Lua scripts pass through the connection too; each gets a preamble
(`scripts/prefix.lua`) which does the same for the keys that a script builds itself. Without a
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
"""How keys of a fleet without a prefix begin; such a prefix would put two fleets' keys together."""


def prefix() -> str:
    """
    Return the prefix of all keys and channels; empty if there is none.

    Raises:
        ValueError: It cannot be used; the message says what is allowed.
    """
    found = os.environ.get(VARIABLE, "")
    if found and not ALLOWED.fullmatch(found):
        raise ValueError(
            f"{VARIABLE} must be 1 to 64 letters, digits and any of _ . : / -, such as team-a:"
        )
    if found.startswith(OURS):
        raise ValueError(
            f"{VARIABLE} must not begin like a key of a fleet without a prefix "
            f"({', '.join(OURS)}); use a name of your own, such as team-a:"
        )
    return found


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
"""Which words after a command are keys or channels; further ones are in `Prefixer`."""


class Prefixer:
    """
    Rewrite the commands and replies of one connection.

    Args:
        prefix: Not empty.
    """

    _scripts: ClassVar[dict[str, str]] = {}
    """Of all connections: SHA-1 of a script and the prefix -> SHA-1 of what was loaded for it."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._bytes = prefix.encode()
        self._rest: Mapping[str, Callable[[list[Any]], list[Any]]] = {
            "EVAL": self._eval, "EVALSHA": self._evalsha, "SCAN": self._scan,
            "SCRIPT": self._script, "XREAD": self._xread, "XREADGROUP": self._xread,
        }  # fmt: skip
        self._readers: Mapping[str, Callable[[Any], Any]] = {
            **dict.fromkeys(("BLPOP", "BRPOP", "BZPOPMAX", "BZPOPMIN"), self._popped),
            **dict.fromkeys(("XREAD", "XREADGROUP"), self._entries),
            **dict.fromkeys((name for name in POSITIONS if "SUBSCRIBE" in name), self._published),
            "SCAN": self._page,
        }
        self._reader: Callable[[Any], Any] | None = None

    def command(self, words: tuple[Any, ...]) -> tuple[Any, ...]:
        """
        Return a command with the prefix before each of its keys.

        Raises:
            redis.DataError: It is not known where this command has its keys.
        """
        head, *given = words
        name, *subcommand = _upper(head).split()  # redis-py has CONFIG GET as one word
        if name != "PING":  # a connection that subscribes is asked whether it lives
            self._reader = self._readers.get(name)
        given = [*subcommand, *given]
        if name in self._rest:
            given = self._rest[name](given)
        elif name in POSITIONS:
            given = self._prefixed(given, POSITIONS[name])
        else:
            raise DataError(f"with {VARIABLE} set, {name} cannot be sent: its keys are not known")
        return head, *given[len(subcommand) :]

    def reply(self, found: Any) -> Any:
        """Return a reply to the last command, or a published message, without the prefix."""
        return self._reader(found) if self._reader and found else found

    def _prefixed(self, given: list[Any], where: slice) -> list[Any]:
        given[where] = [
            self._bytes + key if isinstance(key, bytes) else f"{self.prefix}{key}"
            for key in given[where]
        ]
        return given

    def _eval(self, given: list[Any]) -> list[Any]:
        return self._with_keys([self._loaded(given[0]), *given[1:]])

    def _evalsha(self, given: list[Any]) -> list[Any]:
        return self._with_keys([self._sha(given[0]), *given[1:]])

    def _with_keys(self, given: list[Any]) -> list[Any]:
        return self._prefixed(given, slice(2, 2 + int(given[1])))

    def _script(self, given: list[Any]) -> list[Any]:
        what, *words = given
        change = {"LOAD": self._loaded, "EXISTS": self._sha}.get(_upper(what))
        return [what, *(map(change, words) if change else words)]

    def _loaded(self, source: Any) -> str:
        """Return a script's source with the preamble, and keep by which name it is asked for."""
        text = _text(source)
        whole = preamble(self.prefix) + text
        loaded = _sha1(whole)
        self._scripts[_sha1(text) + self.prefix] = loaded
        self._scripts[loaded + self.prefix] = loaded  # redis-py keeps the reply of SCRIPT LOAD
        return whole

    def _sha(self, sha: Any) -> str:
        """
        Return the SHA-1 of the script with its preamble.

        A server keeps one set of scripts for all databases and clients. Another fleet may have
        loaded this script without a prefix, and the plain SHA-1 would run it on that fleet's keys.
        For a script that this process has not loaded yet, return a name that no script has: the
        server then answers NOSCRIPT, and the caller loads the script.
        """
        known = _text(sha) + self.prefix
        return self._scripts.get(known) or _sha1(known)

    def _scan(self, given: list[Any]) -> list[Any]:
        for index, word in enumerate(given[1:], 1):
            if _upper(word) == "MATCH":
                return self._prefixed(given, slice(index + 1, index + 2))
        return [*given, "MATCH", f"{self.prefix}*"]

    def _xread(self, given: list[Any]) -> list[Any]:
        first = [_upper(word) for word in given].index("STREAMS") + 1
        return self._prefixed(given, slice(first, first + (len(given) - first) // 2))

    def _entries(self, found: Any) -> Any:
        if isinstance(found, dict):  # RESP3
            return {self._bare(name): entries for name, entries in found.items()}
        return [[self._bare(name), *entries] for name, *entries in found]

    def _page(self, found: Any) -> Any:
        cursor, keys = found
        return [cursor, [self._bare(key) for key in keys]]

    def _popped(self, found: Any) -> Any:
        key, *value = found
        return [self._bare(key), *value]

    def _published(self, found: Any) -> Any:
        """Read `message`, channel, data; or `pmessage`, pattern, channel, data; or the like."""
        if not isinstance(found, list):
            return found
        kind, *channels, data = found
        return [kind, *map(self._bare, channels), data]

    def _bare(self, key: Any) -> Any:
        if isinstance(key, bytes):
            return key.removeprefix(self._bytes)
        return key.removeprefix(self.prefix) if isinstance(key, str) else key


class _Packer:
    """redis-py's packer of commands, with the prefix."""

    def __init__(self, packer: Any, prefixer: Prefixer) -> None:
        self._packer = packer
        self._prefixer = prefixer

    def pack(self, *words: Any) -> Any:
        return self._packer.pack(*self._prefixer.command(words))


def prefixed(kind: type, with_prefix: str) -> type:
    """
    Return a class of redis-py's connections, sync or async, whose keys have a prefix.

    Args:
        with_prefix: Empty: the class itself.
    """
    if not with_prefix:
        return kind
    wrap = _async if kind.__module__.startswith("redis.asyncio") else _sync
    return wrap(kind, with_prefix)


def _sync(kind: type, with_prefix: str) -> type:
    class Prefixed(kind):  # type: ignore[misc]
        def _construct_command_packer(self, packer: Any) -> Any:
            self._prefixer = Prefixer(with_prefix)
            return _Packer(super()._construct_command_packer(packer), self._prefixer)

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            return self._prefixer.reply(super().read_response(*args, **kwargs))

    return Prefixed


def _async(kind: type, with_prefix: str) -> type:
    class Prefixed(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._prefixer = Prefixer(with_prefix)
            super().__init__(*args, **kwargs)

        def pack_command(self, *words: Any) -> Any:
            return super().pack_command(*self._prefixer.command(words))

        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            return self._prefixer.reply(await super().read_response(*args, **kwargs))

    return Prefixed


@cache
def preamble(with_prefix: str) -> str:
    """Return what stands before each Lua script: one line, so that line numbers stay right."""
    source = (files("breakwater.redis") / "scripts" / "prefix.lua").read_text()
    lines = [line.split("-- ")[0].strip() for line in source.splitlines()]
    return " ".join(filter(None, lines)).replace("PREFIX", f"'{with_prefix}'") + " "


def _text(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _upper(word: Any) -> str:
    return _text(word).upper()


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

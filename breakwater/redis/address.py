"""
Parse the address of Redis, in every form that REDIS_URL may have.

    redis://[USER[:PASSWORD]@]HOST[:PORT][/DB][?OPTION=VALUE&…]
    rediss://…                                          the same through TLS
    unix://[USER[:PASSWORD]@]/PATH[?db=DB]              also redis+socket://
    sentinel://[USER[:PASSWORD]@]HOST[:PORT];HOST…[/DB]?master=NAME
    sentinels://…                                       the same through TLS

redis-py, kombu and Celery each read a URL differently. Without options, kombu checks no
certificate, Celery refuses, and redis-py checks it. With several Sentinels, kombu changes to its
own transport after a lost connection. So only this module reads the URL, and all three receive a
pool.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import (
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.driver_info import DriverInfo
from redis.retry import Retry
from redis.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from breakwater.redis.prefix import prefix, prefixed

DEFAULT_URL = "redis://127.0.0.1:6379/0"
SENTINEL_S = 0.5
"""The time limit for one Sentinel; Sentinels are asked before Redis."""
PORT, SENTINEL_PORT = 6379, 26379
CONNECTIONS: Mapping[str, type] = {
    "redis": Connection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
    "redis+socket": UnixDomainSocketConnection,
    "sentinel": SentinelManagedConnection,
    "sentinels": SentinelManagedSSLConnection,
}


def _flag(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
        text.lower()
    ]


def _certificate(text: str) -> str:
    wanted = text.lower().removeprefix("cert_")
    return {word: word for word in ("none", "optional", "required")}[wanted]


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError
    return int(text)


DRIVER = DriverInfo()
"""
The client information that connections send. Without it, redis-py reads its version from a file for
each connection, and a host that cannot open more files gets an OSError instead of a
ConnectionError.
"""
Options = dict[str, Any]
"""Keyword arguments of redis-py's connections."""
READ_BYTES = 8 * 1024
"""The read buffer of each connection; redis-py's own has 32 kB."""
OPTIONS: Mapping[str, Callable[[str], str | int | float | bool]] = {
    "db": _database, "client_name": str, "socket_timeout": float, "socket_connect_timeout": float,
    "health_check_interval": int, "max_connections": int,
}  # fmt: skip
TLS_OPTIONS: Mapping[str, Callable[[str], str | int | float | bool]] = {
    "ssl_cert_reqs": _certificate, "ssl_ca_certs": str, "ssl_ca_path": str, "ssl_certfile": str,
    "ssl_keyfile": str, "ssl_password": str, "ssl_check_hostname": _flag,
}  # fmt: skip
SENTINEL_OPTIONS: Mapping[str, Callable[[str], str | int | float | bool]] = {
    "master": str, "sentinel_username": str, "sentinel_password": str,
}  # fmt: skip
OF_SENTINEL = {"sentinel_username": "username", "sentinel_password": "password"}


@dataclass(frozen=True, slots=True)
class Address:
    """
    A parsed REDIS_URL.

    Attributes:
        shown: The URL without user, password and options.
        options: Keyword arguments of redis-py's connections.
        sentinels: Host and port of each Sentinel; empty if there is none.
        master: The name of the master at the Sentinels.
        sentinel_options: Like `options`, for connections to the Sentinels.
    """

    shown: str
    connection_class: type
    options: Options = field(repr=False)
    sentinels: tuple[tuple[str, int], ...] = ()
    master: str = ""
    sentinel_options: Options = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, url: str) -> "Address":
        """
        Parse a URL.

        Raises:
            ValueError: The URL is not valid. The message says what is wrong and what is allowed; it
                never quotes the URL, because every part may contain a password that is not
                percent-encoded.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError(f"it is not a valid URL; {_ENCODE}") from None
        if parts.fragment:
            raise ValueError(f"there is a # in it; {_ENCODE}")
        scheme = parts.scheme.lower()
        if scheme not in CONNECTIONS:
            raise ValueError(f"it must begin with {', '.join(f'{s}://' for s in CONNECTIONS)}")
        user, _, hosts = parts.netloc.rpartition("@")
        options, kind = _options(parts.query, scheme), CONNECTIONS[scheme]
        name, _, password = user.partition(":")
        if name:
            options["username"] = unquote(name)
        if password:
            options["password"] = unquote(password)
        if kind is UnixDomainSocketConnection:
            if hosts or len(parts.path) < 2:
                raise ValueError(f"{scheme}:// needs the path of a socket, as in {scheme}:///PATH")
            path = unquote(parts.path)
            return cls(f"{scheme}://{path}", kind, {"db": 0, **options, "path": path})
        options = {"db": _db_in(parts.path), **options}
        if not scheme.startswith("sentinel"):
            host, port = _host(hosts, PORT)
            shown = f"{scheme}://{hosts or host}/{options['db']}"
            return cls(shown, kind, {**options, "host": host, "port": port})
        return cls._of_sentinels(scheme, hosts, options)

    @classmethod
    def _of_sentinels(cls, scheme: str, hosts: str, options: Options) -> "Address":
        if not (master := options.pop("master", "")):
            raise ValueError(f"{scheme}:// needs ?master=NAME, as the Sentinels call it")
        hosts = hosts.replace(";", ",")
        sentinels = tuple(_host(each, SENTINEL_PORT) for each in hosts.split(","))
        own = {key: options.pop(name) for name, key in OF_SENTINEL.items() if name in options}
        own |= {key: value for key, value in options.items() if key.startswith("ssl_")}
        if scheme == "sentinels":
            own["ssl"] = True
        shown = f"{scheme}://{hosts}/{options['db']}"
        return cls(shown, CONNECTIONS[scheme], options, sentinels, master, own)

    @property
    def db(self) -> int:
        """The number of the database."""
        number: int = self.options["db"]
        return number

    def pool(self, *, shared: bool = False, **defaults: Any) -> ConnectionPool:
        """
        Build a pool without retries; options of the URL override `defaults`.

        Keys and channels get the prefix of BREAKWATER_PREFIX.

        Args:
            shared: If all `max_connections` are in use, a thread waits for one, up to
                `socket_timeout`; otherwise it gets a ConnectionError immediately.
            defaults: Keyword arguments of redis-py's connections, and `connection_class`.

        Raises:
            ValueError: BREAKWATER_PREFIX is not valid.
        """
        options: Options = {
            "connection_class": self.connection_class,
            "retry": Retry(NoBackoff(), 0),
            "socket_read_size": READ_BYTES,
            "driver_info": DRIVER,
            **defaults,
            **self.options,
        }
        options["connection_class"] = prefixed(options["connection_class"], prefix())
        if shared:
            options["timeout"] = options.get("socket_timeout")
        if not self.sentinels:
            direct = BlockingConnectionPool if shared else ConnectionPool
            return direct(**options)
        # A slow Sentinel must not use up the time limit of Redis itself.
        wait_s = min(options.get("socket_timeout") or SENTINEL_S, SENTINEL_S)
        manager = Sentinel(self.sentinels, sentinel_kwargs=self._sentinel_kwargs(wait_s))  # type: ignore[no-untyped-call]
        kind = _BlockingSentinelPool if shared else SentinelConnectionPool
        return kind(self.master, manager, **options)  # type: ignore[no-untyped-call]

    def sentinel(self, host: str, port: int, timeout_s: float = SENTINEL_S) -> Redis:
        """Build a client for one Sentinel."""
        return Redis(host, port, **self._sentinel_kwargs(timeout_s))

    def _sentinel_kwargs(self, timeout_s: float) -> Options:
        return {
            "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0), **self.sentinel_options,
        }  # fmt: skip


class _BlockingSentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """A pool whose server a Sentinel names, and whose threads wait for a connection."""


_ENCODE = "a password with any of : / ? # @ % in it must be percent-encoded"


def redis_url() -> str:
    """Return the URL of Redis, for broker, results and breakers."""
    return os.environ.get("REDIS_URL") or DEFAULT_URL


def _options(query: str, scheme: str) -> Options:
    known = {**OPTIONS}
    if scheme in {"rediss", "sentinels"}:
        known |= TLS_OPTIONS
    if scheme.startswith("sentinel"):
        known |= SENTINEL_OPTIONS
    options: Options = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name == "virtual_host":  # Celery's name of it
            name = "db"  # noqa: PLW2901 - the same option
        if name not in known:
            reason = "unknown option"
            if name in TLS_OPTIONS:
                reason = f"{name} is for rediss://"
            raise ValueError(f"{reason}; {scheme}:// has {', '.join(known)}")
        try:
            options[name] = known[name](text)
        except (KeyError, ValueError):
            raise ValueError(f"the value of its option {name} cannot be used") from None
    return options


def _db_in(path: str) -> int:
    try:
        return _database(path.strip("/") or "0")
    except ValueError:
        raise ValueError(f"its database must be a number, as in /0; {_ENCODE}") from None


def _host(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.strip().rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text.strip(), str(default_port)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"a port must be a number from 1 to 65535; {_ENCODE}")
    host = host.removeprefix("[").removesuffix("]")
    return unquote(host) or "127.0.0.1", int(port)

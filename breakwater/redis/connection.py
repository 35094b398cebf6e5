"""
Connect to Redis: for delivery, results, commands and breakers.

`breakwater.redis.address` reads the forms of REDIS_URL. This module has the settings that all
connections share, and explains Redis' errors with the next step. docs/redis.md covers the server.
"""

import os
import re
from typing import Any, cast

import redis
import redis.asyncio
import redis.asyncio.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as NoAnswer
from redis.sentinel import MasterNotFoundError

from breakwater.errors import ConfigError, QueueUnavailable
from breakwater.redis.address import Address, redis_url
from breakwater.redis.prefix import prefix, prefixed

__all__ = ["address", "client", "explain", "is_transient", "redis_url", "shown"]

Options = dict[str, Any]
"""Keyword arguments of redis-py's connections."""
MAX_CONNECTIONS = 10_000
"""With redis-py's own limit of 100, the 101st thread gets an error; it does not wait."""
SHARED_CONNECTIONS = 64
"""
The connections that all threads of a worker share. Without this limit, a thousand threads that
needed Redis at the same moment opened hundreds of connections of 20 to 30 kB each. A thousand
threads with calls of 5 s send 600 commands a second; 64 connections suffice for round trips of up
to 0.1 s.
"""
QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
CONNECT_S, ANSWER_S = 2.0, 5.0
"""The time limits after which Redis counts as unavailable."""
TRANSIENT_REPLIES = ("MISCONF", "NOREPLICAS", "BUSY ")
"""The beginnings of transient errors for which redis-py has no class."""


def address(url: str | None = None) -> Address:
    """
    Parse a URL; REDIS_URL by default.

    Raises:
        ConfigError: The URL or BREAKWATER_PREFIX is at fault; the message never quotes the URL.
    """
    try:
        prefix()
        _check_queue(os.environ.get("BREAKWATER_QUEUE", ""))
    except ValueError as fault:
        raise ConfigError(str(fault), {"faults": [str(fault)]}) from None
    try:
        return Address.of(url or redis_url())
    except ValueError as fault:
        raise ConfigError(
            f"REDIS_URL cannot be used: {fault}", {"faults": [f"REDIS_URL: {fault}"]}
        ) from None


def _check_queue(name: str) -> None:
    """Check the name of the common queue (`breakwater.celery_app.COMMON_QUEUE`)."""
    if name and (not QUEUE_NAME.fullmatch(name) or name.startswith("role.")):
        raise ValueError(
            "BREAKWATER_QUEUE must be 1 to 64 letters, digits, '_', '.' and '-'; it begins with a "
            "letter or a digit, and not with role."
        )


def client(
    url: str | None = None, *, connect_s: float = CONNECT_S, answer_s: float = ANSWER_S
) -> redis.Redis:
    """
    Build a client with these time limits and without retries; callers decide how long to retry.

    Its threads share a few connections. A thread that finds none free waits for one, up to
    `answer_s`.

    Raises:
        ConfigError: The URL cannot be used.
    """
    return redis.Redis.from_pool(
        address(url).pool(
            socket_connect_timeout=connect_s,
            socket_timeout=answer_s,
            max_connections=SHARED_CONNECTIONS,
            shared=True,
        )
    )


def async_client() -> redis.asyncio.Redis:
    """
    Build a client for one event loop, with the limits of `client`; close it with `async with`.

    Raises:
        ConfigError: REDIS_URL cannot be used.
    """
    where = address()
    options: Options = {
        "socket_connect_timeout": CONNECT_S, "socket_timeout": ANSWER_S,
        "retry": AsyncRetry(NoBackoff(), 0), **where.options,
    }  # fmt: skip
    kind = getattr(redis.asyncio.connection, where.connection_class.__name__, None)
    if kind is not None:
        pool = redis.asyncio.ConnectionPool(connection_class=prefixed(kind, prefix()), **options)
        return redis.asyncio.Redis.from_pool(pool)
    if where.shown.startswith("sentinels"):
        options["ssl"] = True
    kind = getattr(redis.asyncio.sentinel, where.connection_class.__name__)
    options["connection_class"] = prefixed(kind, prefix())
    sentinel_kwargs = {"socket_timeout": CONNECT_S, **where.sentinel_options}
    sentinel = redis.asyncio.Sentinel(  # type: ignore[no-untyped-call]
        where.sentinels, sentinel_kwargs=sentinel_kwargs
    )
    return cast("redis.asyncio.Redis", sentinel.master_for(where.master, **options))


def shown() -> str:
    """
    Return REDIS_URL without user, password and options, for logs; `redis://` if it is invalid.
    """
    try:
        return Address.of(redis_url()).shown
    except ValueError:
        return "redis://"


def is_transient(error: RedisError) -> bool:
    """
    Return whether Redis may accept the same command later: it is unavailable, full or read-only.
    """
    transient = (
        NotConnected, NoAnswer, OutOfMemoryError, ReadOnlyError, MasterDownError, NoPermissionError,
    )  # fmt: skip
    return isinstance(error, transient) or str(error).startswith(TRANSIENT_REPLIES)


def unavailable(
    failure: str,
    error: BaseException,
    again: str,
    details: dict[str, object],
    explained: tuple[str, str] | None = None,
) -> QueueUnavailable:
    """
    Build the error of a step that Redis did not execute.

    Args:
        failure: The failed step, as the beginning of the message.
        error: The error of Redis, or Celery's error that wraps it.
        again: What to do after the cause is fixed, as the end of the message.
        explained: The meaning of the error and the next step, if `explain` knows less.
    """
    cause = cause_of(error)
    meaning, step = explained or explain(cause)
    words = own_words(cause)
    if words not in meaning:
        meaning = f"{meaning} ({words})"
    return QueueUnavailable(f"{failure}: {meaning}, at {shown()}; {step}; {again}", details)


def cause_of(error: BaseException) -> BaseException:
    """Return the error of Redis that caused an error; the error itself if there is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, RedisError):
        cause = cause.__cause__
    return cause or error


def own_words(error: BaseException) -> str:
    """
    Return the text of a Redis error without the arguments of a command, which may hold a prompt.

    For a command in a pipeline, redis-py quotes all arguments; this keeps the command and its key.
    """
    text = str(error)
    quoted, is_pipelined, reply = text.rpartition(") of pipeline caused error: ")
    if is_pipelined and quoted.startswith("Command # "):
        text = reply
        command = " ".join(quoted.partition("(")[2].split(" ", 2)[:2])
        if "EVAL" not in command:
            text = f"{command}: {reply}"
    text = text.partition(", with args")[0].partition("\n")[0]
    text = text.rstrip(".")
    if len(text) > MAX_CHARS:
        return text[:MAX_CHARS] + "…"
    return text


def explain(error: BaseException) -> tuple[str, str]:
    """Return the meaning of a Redis error, and the next step."""
    words = own_words(error)
    for kind, word, meaning, step in MEANINGS:
        if isinstance(error, kind) and word in words:
            return meaning.format(error=words), step
    meaning = type(error).__name__
    if words:
        meaning = f"{meaning}: {words}"
    return meaning, "`breakwater doctor` checks all of it"


MAX_CHARS = 200
MEANINGS = (
    (OutOfMemoryError, "", "it is full (OOM)", "give it memory, or let the workers drain it"),
    (
        ReadOnlyError, "", "it is a replica (READONLY)",
        "name the master, or the Sentinels: sentinel://HOST;HOST/0?master=NAME",
    ),
    (
        AuthenticationError, "Authentication required", "it wants a password; REDIS_URL has none",
        "write it as redis://:PASSWORD@HOST:6379/0, or redis://USER:PASSWORD@… with ACLs",
    ),
    (AuthenticationError, "", "it refuses the user or the password", "correct REDIS_URL"),
    (
        RedisError, "DB index", "it has no database of this number",
        "name an existing one, such as /0, in REDIS_URL, or raise `databases` in redis.conf",
    ),
    (
        RedisError, "max number of clients", "it takes no more connections",
        "raise `maxclients`, or let fewer processes share it",
    ),
    (
        RedisError, "WRONGTYPE", "a key of another program is in the way",
        "give Breakwater a database of its own, or set BREAKWATER_PREFIX",
    ),
    (
        NoPermissionError, "", "its ACL does not allow this user enough (NOPERM)",
        "give the user the rules that `breakwater docs redis#users` lists",
    ),
    (BusyLoadingError, "", "it is still loading its data (LOADING)", "wait for it"),
    (MasterDownError, "", "it is a replica whose master is down (MASTERDOWN)", "name the master"),
    (
        MasterNotFoundError, "", "no Sentinel names a master that is alive",
        "is ?master= right, and do the Sentinels run and take the sentinel_password?",
    ),
    (NoAnswer, "", "no answer in time", "does the server run, and can this host reach it?"),
    (
        NotConnected, "SSL", "TLS fails: {error}",
        "does it speak TLS, and does ssl_ca_certs name the CA of its certificate?",
    ),
    (
        NotConnected, "Error -", "this host does not know that name: {error}",
        "is the host in REDIS_URL right, and does its name resolve here?",
    ),
    (NotConnected, "", "no connection: {error}", "is REDIS_URL right, and does the server run?"),
    (RedisError, "MISCONF", "it cannot write to its disk (MISCONF)", "see to its disk"),
    (RedisError, "NOREPLICAS", "too few replicas follow it (NOREPLICAS)", "see to its replicas"),
)  # fmt: skip

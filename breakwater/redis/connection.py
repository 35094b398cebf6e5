"""
How everybody here reaches Redis: the delivery, the results, the commands, the breakers.

`breakwater.redis.address` reads the forms of REDIS_URL; this module has what all connections share,
and explains Redis' refusals with what to do next. docs/redis.md has the server's side.
"""

import os
import re
from typing import Any

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

MAX_CONNECTIONS = 10_000
"""redis-py's own limit of 100 is an error at the 101st thread, not a queue."""
SHARED_CONNECTIONS = 64
"""
What all threads of a worker share to Redis. A thousand that turn there at once opened hundreds, of
20 to 30 kB each, for one moment; a thousand with calls of 5 s ask 600 times a second, for which
these do up to a round trip of 0.1 s.
"""
QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
CONNECT_S, ANSWER_S = 2.0, 5.0
"""How long Redis is waited for before it is taken for away."""
TRANSIENT_REPLIES = ("MISCONF", "NOREPLICAS", "BUSY ")
"""How such refusals begin that redis-py has no class for."""


def address(url: str | None = None) -> Address:
    """
    Understand a URL; REDIS_URL if none is given.

    Raises:
        ConfigError: What is wrong with it, never what is in it; or with BREAKWATER_PREFIX.
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
    """Check what the common queue is to be called (`breakwater.celery_app.COMMON_QUEUE`)."""
    if name and (not QUEUE_NAME.fullmatch(name) or name.startswith("role.")):
        raise ValueError(
            "BREAKWATER_QUEUE must be 1 to 64 letters, digits, '_', '.' and '-'; it begins with a "
            "letter or a digit, and not with role."
        )


def client(
    url: str | None = None, *, connect_s: float = CONNECT_S, answer_s: float = ANSWER_S
) -> redis.Redis:
    """
    Build a client that waits so long, and retries nothing: for how long is ours to say.

    Its threads share a few connections; who finds none free waits for one as long as for an answer.

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
    Build a client for one event loop, that waits as `client` does; close it with `async with`.

    Raises:
        ConfigError: REDIS_URL cannot be used.
    """
    where = address()
    options: dict[str, Any] = {
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
    asking = {"socket_timeout": CONNECT_S, **where.sentinel_options}
    asked: Any = redis.asyncio.Sentinel(where.sentinels, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    found: redis.asyncio.Redis = asked.master_for(where.master, **options)
    return found


def shown() -> str:
    """Return REDIS_URL without user, password and options, for logs; its scheme if it is bad."""
    try:
        return Address.of(redis_url()).shown
    except ValueError:
        return "redis://"


def is_transient(error: RedisError) -> bool:
    """Tell a Redis that is away, or refuses until somebody sees to it, from one that says no."""
    passing = (
        NotConnected, NoAnswer, OutOfMemoryError, ReadOnlyError, MasterDownError, NoPermissionError,
    )  # fmt: skip
    return isinstance(error, passing) or str(error).startswith(TRANSIENT_REPLIES)


def unavailable(
    what: str,
    error: BaseException,
    again: str,
    details: dict[str, Any],
    explained: tuple[str, str] | None = None,
) -> QueueUnavailable:
    """
    Build the error of a step that Redis did not take.

    Args:
        what: What did not happen, as a sentence begins.
        error: Redis', or Celery's around it.
        again: What to do once the cause is mended, as a sentence ends.
        explained: What the error means, and what to do, where more is known than `explain` says.
    """
    cause = cause_of(error)
    meaning, step = explained or explain(cause)
    words = own_words(cause)
    says = "" if words in meaning else f" ({words})"
    return QueueUnavailable(f"{what}: {meaning}{says}, at {shown()}; {step}; {again}", details)


def cause_of(error: BaseException) -> BaseException:
    """Return the error of Redis that another one was raised from; itself, if there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, RedisError):
        found = found.__cause__
    return found or error


def own_words(error: BaseException) -> str:
    """
    Return what Redis said, without what it repeats of a command: that may hold a prompt.

    Of a command in a pipeline redis-py names all words; kept are the command and its key.
    """
    text = str(error)
    pipelined, is_pipelined, said = text.rpartition(") of pipeline caused error: ")
    if is_pipelined and pipelined.startswith("Command # "):
        command = " ".join(pipelined.partition("(")[2].split(" ", 2)[:2])
        text = said if "EVAL" in command else f"{command}: {said}"
    text = text.partition(", with args")[0].partition("\n")[0]
    text = text.rstrip(".")
    return text if len(text) <= WORDS else text[:WORDS] + "…"


def explain(error: BaseException) -> tuple[str, str]:
    """Say what an error of Redis means, and what to do."""
    words = own_words(error)
    for kind, word, what, step in MEANINGS:
        if isinstance(error, kind) and word in words:
            return what.format(error=words), step
    what = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return what, "`breakwater doctor` looks at all of it"


WORDS = 200
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
        "name one that there is, such as /0, in REDIS_URL, or raise `databases` in redis.conf",
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

"""`delay()` while Redis refuses, is away, or hangs: why and where, soon, and nothing half-done."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from breakwater import celery_app, errors
from breakwater.redis.connection import explain, own_words, unavailable
from tests.support.ports import free_port
from tests.support.spawner import run
from tests.support.valkey import Server

ENQUEUE = """
from celery.exceptions import OperationalError
from tasks import complete
from breakwater.errors import BreakwaterError, QueueUnavailable
try:
    complete.delay("coder", "CANARY")
except OperationalError as error:
    assert isinstance(error, BreakwaterError) and isinstance(error, QueueUnavailable)
    assert error.details["task_id"] in str(error)
    print(type(error).__name__, error)
"""
PASSWORD = "CANARYWORD"


@contextmanager
def refused() -> Iterator[str]:
    yield f"redis://127.0.0.1:{free_port()}/0"


@contextmanager
def unknown_host() -> Iterator[str]:
    yield "redis://no-such-host.invalid:6379/0"


@contextmanager
def no_socket() -> Iterator[str]:
    yield "unix:///nowhere/redis.sock"


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@contextmanager
def told(*command: str, to: str = "redis://", db: str = "/0") -> Iterator[str]:
    with Server(appendonly="no") as server:
        server.client.execute_command(*command)
        yield server.url.replace("redis://", to).replace("/0", db)


WAYS = {
    "refused": (refused, "Connection refused"),
    "unknown host": (unknown_host, "this host does not know that name"),
    "no socket": (no_socket, "No such file or directory"),
    "silent": (silent, "no answer in time"),
    "full": (lambda: told("CONFIG", "SET", "maxmemory", "1"), "it is full (OOM)"),
    "a replica": (lambda: told("REPLICAOF", "127.0.0.1", "1"), "it is a replica"),
    "no password": (
        lambda: told("CONFIG", "SET", "requirepass", PASSWORD), "it wants a password; REDIS_URL has none",
    ),
    "another password": (
        lambda: told("CONFIG", "SET", "requirepass", "other", to=f"redis://:{PASSWORD}@"),
        "it refuses the user or the password",
    ),
    "no such user": (
        lambda: told("PING", to=f"redis://nobody:{PASSWORD}@"), "it refuses the user or the password",
    ),
    "no rights": (
        lambda: told("ACL", "SETUSER", "bob", "on", f">{PASSWORD}", "~*", "+ping", to=f"redis://bob:{PASSWORD}@"),
        "its ACL does not allow this user enough (NOPERM)",
    ),
    "no such database": (lambda: told("PING", db="/99"), "DB index is out of range"),
    "no connection left": (lambda: told("CONFIG", "SET", "maxclients", "1"), "it takes no more connections"),
    "another program's key": (
        lambda: told("MSET", "celery", "x", "role.coder", "x"), "WRONGTYPE Operation against a key holding the wrong kind",
    ),
    "no TLS": (lambda: told("PING", to="rediss://"), "no answer in time"),
}  # fmt: skip


WAITS = {"silent", "no TLS"}
"""Those that are waited for: two timeouts of 2 s."""


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=[pytest.mark.slow] if way in WAITS else []) for way in WAYS],
)
def test_a_prompt_that_redis_does_not_take_is_an_error_of_delay(way: str) -> None:
    """It says why and where, never the password; it ends by itself, where Celery would wait."""
    server, why = WAYS[way]
    with server() as url:
        done = run(
            [sys.executable, "-c", ENQUEUE], env={"REDIS_URL": url, "PATH": ""}, timeout_s=180
        )

    assert done.stdout.startswith("QueueUnavailable Redis did not take the task: "), done.stderr
    assert why in done.stdout
    address = url.rpartition("@")[2].partition("://")[2] or url.rpartition("@")[2]
    assert address.rpartition("/")[0] in done.stdout
    assert "CANARY" not in done.stdout + done.stderr


def test_the_error_is_where_the_others_are() -> None:
    """And where it was before."""
    assert errors.QueueUnavailable is celery_app.QueueUnavailable


WORDS = {
    "Command # 1 (EVALSHA abc 2 k1 k2 CANARY) of pipeline caused error: OOM it is full": "OOM it is full",
    "Command # 3 (LLEN role.coder) of pipeline caused error: WRONGTYPE no list": "LLEN role.coder: WRONGTYPE no list",
    "Command # 1 (SET k CANARY\n) of pipeline caused error: x) of pipeline caused error: y": "SET k: y",
    "unknown command 'FOO', with args beginning with: 'CANARY'": "unknown command 'FOO'",
    "one line\nCANARY": "one line",
    "x" * 300: "x" * 200 + "…",
}


@pytest.mark.parametrize(("said", "shown"), WORDS.items())
def test_what_redis_repeats_of_a_command_is_not_shown(said: str, shown: str) -> None:
    """It may hold a prompt; the command's name and its key do not."""
    assert own_words(ResponseError(said)) == shown
    assert "CANARY" not in "".join(explain(ResponseError(said)))
    assert "CANARY" not in str(unavailable("x", ResponseError(said), "y", {}))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
            "command not allowed",
        ),
        (
            NotConnected("Error 111 connecting to h:1. Connection refused."),
            "Connection refused, at ",
        ),
        (ResponseError("ERR something new"), "ERR something new"),
    ],
)
def test_redis_own_words_are_there_once(error: RedisError, words: str) -> None:
    """Also of an error that came through Celery's."""
    around = OSError("Celery's")
    around.__cause__ = error

    shown = str(unavailable("not taken", around, "again", {}))

    assert shown.count(words) == 1
    assert shown.endswith("; again")

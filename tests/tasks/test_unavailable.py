"""`delay()` while Redis refuses, is away, or hangs: a clear error, soon, and nothing half-done."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.ports import free_port
from tests.support.spawner import run
from tests.support.valkey import Server

ENQUEUE = """
from celery.exceptions import OperationalError
from tasks import complete
from tasks.errors import BreakwaterError
try:
    complete.delay("coder", "CANARY")
except OperationalError as error:
    assert isinstance(error, BreakwaterError)
    assert error.details["task_id"] in str(error)
    print(type(error).__name__, error)
"""


@contextmanager
def refused() -> Iterator[str]:
    yield f"redis://127.0.0.1:{free_port()}/0"


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@contextmanager
def told(*command: str) -> Iterator[str]:
    with Server(appendonly="no") as server:
        server.client.execute_command(*command)
        yield server.url


WAYS = {
    "refused": refused,
    "silent": silent,
    "full": lambda: told("CONFIG", "SET", "maxmemory", "1"),
    "a replica": lambda: told("REPLICAOF", "127.0.0.1", "1"),
    "a password": lambda: told("CONFIG", "SET", "requirepass", "secret"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_prompt_that_redis_does_not_take_is_an_error_of_delay(way: str) -> None:
    """It ends by itself: by default Celery waits for ever for a silent server."""
    with WAYS[way]() as url:
        done = run(
            [sys.executable, "-c", ENQUEUE], env={"REDIS_URL": url, "PATH": ""}, timeout_s=180
        )

    assert done.stdout.startswith("QueueUnavailable Redis did not take the task"), done.stderr
    assert "CANARY" not in done.stdout + done.stderr

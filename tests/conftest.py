"""What every test may use: a real Redis-protocol server for each test process."""

import os
import signal
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings

from tests.support.valkey import Server
from tests.support.zygote import end_with_parent

LONGEST = ("chaos", "workers")
# The same examples in each run, and no limit on how long drawing one may take: what fails here is to
# fail because of a fault, and for everybody. `make proof` draws at random.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")
# A run that is killed leaves nothing behind: neither forks of tests nor xdist's processes.
os.register_at_fork(after_in_child=end_with_parent)
if "PYTEST_XDIST_WORKER" in os.environ:
    end_with_parent()
# A shell ignores SIGINT for what runs in its background, and so would every process of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Start with the tests that take long, or one core is idle at the end.

    Each process of xdist begins with its own part of the list: deal the long ones to all parts, and
    leave the others together, with the fixtures of their modules.
    """
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.path.parent.name in LONGEST]
    short = [item for item in items if item.path.parent.name not in LONGEST]
    size = -(-len(short) // parts)
    items[:] = [
        item
        for part in range(parts)
        for item in (*long[part::parts], *short[part * size : (part + 1) * size])
    ]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the keys, files and proxies of the machine it runs on."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_PROXY", "_proxy")) or name in {
            "ROLES_FILE", "REDIS_URL", "LEDGER_URL", "PRIMARY_PROVIDER", "BREAKWATER_PREFIX", "BREAKWATER_QUEUE",
        }:  # fmt: skip
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """
    A real server for this test process alone; yields its URL.

    On a busy machine an answer may take longer than the 0.1 s after which a breaker gives up.
    """
    with Server(appendonly="no") as server:
        yield f"{server.url}?socket_timeout=60&socket_connect_timeout=60"


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The server's URL, with nothing in it."""
    redis.Redis.from_url(redis_server).flushall()
    return redis_server

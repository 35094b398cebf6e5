"""Redis is killed, frozen or full under load: workers come back by themselves, no answer is lost."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
import redis

from simulator.client import Simulator
from tests.support.chaos import account, enqueue, roles_over, wait_until_drained
from tests.support.fleet import Fleet, fleet, wait_for
from tests.support.valkey import Server

LONG = (pytest.mark.long, pytest.mark.timeout(1800))


@pytest.fixture(params=["always", pytest.param("everysec", marks=LONG)])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of one's own."""
    with Server(request.param) as running:
        yield running


@pytest.fixture
def exposed(server: Server, simulator: Simulator) -> Iterator[Fleet]:
    """A fleet on it; the spool is the test's own."""
    with fleet(server.url, roles_over(simulator)) as those:
        those.environ["SPOOL_DIR"] = str(those.folder / "spool")
        yield those


@pytest.mark.parametrize(
    ("pool", "tasks", "times"),
    [
        ("threads", 120, 2),
        *(pytest.param(p, 1_000, 12, marks=LONG) for p in ("threads", "prefork", "gevent")),
    ],
)
def test_redis_is_killed_and_restarted_under_load(
    server: Server, exposed: Fleet, simulator: Simulator, pool: str, tasks: int, times: int
) -> None:
    """However often; nothing that its append-only file holds is lost, and nothing is paid twice."""
    simulator.settings("claude", latency=1)
    exposed.start(2, pool, 8)
    ids = enqueue(exposed, tasks)
    time.sleep(1.5)  # with fsync every second, what is younger may be lost with the server

    for _ in range(times):
        wait_for(lambda: simulator.in_flight("claude") > 4, 30, exposed.logs)
        server.kill()
        time.sleep(2)
        server.start()
        before, since = len(simulator.hits("claude")), time.monotonic()
        wait_for(lambda n=before: len(simulator.hits("claude")) > n, 60, exposed.logs)
        print(f"working again after {time.monotonic() - since:.1f} s")
    wait_until_drained(server.client, exposed, 120 + tasks / 4, "role.coder")

    found = account(server.client, simulator, ids)
    print(found)
    assert found.lost == []
    assert set(found.statuses) == {"SUCCESS"}
    # A take or a settlement in the last second of a server that syncs every second is forgotten.
    assert found.again <= found.counted or server._config["appendfsync"] == "everysec"
    assert found.again <= 16 * times


@pytest.mark.parametrize("frozen_s", [4, pytest.param(30, marks=LONG)])
def test_redis_is_frozen_under_load(
    server: Server, exposed: Fleet, simulator: Simulator, frozen_s: float
) -> None:
    """Longer than a lease, in the long form: nobody is taken for dead who was only not heard."""
    simulator.settings("claude", latency=1)
    exposed.start(2, "threads", 8)
    ids = enqueue(exposed, 60)
    wait_for(lambda: simulator.in_flight("claude") > 4)

    server.freeze()
    time.sleep(frozen_s)
    server.thaw()
    wait_until_drained(server.client, exposed, 60, "role.coder")

    found = account(server.client, simulator, ids)
    assert (found.lost, found.again, found.counted) == ([], 0, 0)


def test_an_answer_that_redis_does_not_take_outlives_its_worker(
    server: Server, exposed: Fleet, simulator: Simulator
) -> None:
    """Paid for while Redis was away, then the worker is killed: the next one settles it."""
    simulator.settings("claude", latency="held")
    exposed.start(1, "threads", 4)
    ids = enqueue(exposed, 4)
    wait_for(lambda: simulator.in_flight("claude") == 4)
    server.kill()
    simulator.release("claude")
    spool = exposed.folder / "spool"
    wait_for(lambda: len(list(spool.glob("*.json"))) == 4, 30, exposed.logs)
    os.killpg(exposed.workers[0].pid, signal.SIGKILL)

    server.start()
    exposed.start(1, "threads", 4)
    wait_until_drained(server.client, exposed, 60, "role.coder")

    found = account(server.client, simulator, ids)
    assert (found.lost, found.paid, found.counted) == ([], 4, 0)
    assert list(spool.iterdir()) == []


def fill(server: Server) -> None:
    for number in range(100):
        server.client.set(f"filler:{number}", "x" * 1_000_000)


def test_a_full_redis_is_drained(simulator: Simulator) -> None:
    """It refuses new prompts with an error; what it has is worked off, and makes room."""
    with (
        Server(maxmemory="12mb", **{"maxmemory-policy": "noeviction"}) as server,
        fleet(server.url, roles_over(simulator)) as exposed,
    ):
        ids = enqueue(exposed, 30)
        with pytest.raises(redis.OutOfMemoryError):
            fill(server)
        exposed.start(1, "threads", 4)
        wait_until_drained(server.client, exposed, 60, "role.coder")

        found = account(server.client, simulator, ids)
        assert (found.lost, set(found.statuses), found.again) == ([], {"SUCCESS"}, 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_is_stopped_while_redis_is_frozen(
    server: Server, exposed: Fleet, simulator: Simulator, pool: str
) -> None:
    """It ends by itself, with its children; what it held is answered by the next worker."""
    simulator.settings("claude", latency=600)
    exposed.start(1, pool, 4, "--grace", "1")
    ids = enqueue(exposed, 6)
    wait_for(lambda: simulator.in_flight("claude") == 4, 60, exposed.logs)

    server.freeze()
    exposed.workers[0].send_signal(signal.SIGTERM)
    code = exposed.workers[0].wait(120)
    wait_for(lambda: simulator.in_flight("claude") == 0, 60)
    server.thaw()
    simulator.settings("claude", latency=0)
    exposed.start(1, "threads", 4)
    wait_until_drained(server.client, exposed, 120, "role.coder")

    assert code == 0
    found = account(server.client, simulator, ids)
    assert (found.lost, found.statuses) == ([], {"SUCCESS": 6})

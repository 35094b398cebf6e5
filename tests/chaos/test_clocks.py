"""Clocks that are wrong, and jump: of a worker's host, of a producer's, and of Redis' server."""

from collections.abc import Iterator
from typing import Any

import pytest

from simulator.client import Simulator
from tests.support.chaos import account, roles_over, wait_until_drained
from tests.support.clocks import WrongClock, server_environ, start_by
from tests.support.fleet import Fleet, fleet, wait_for
from tests.support.valkey import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOUR = 3600
EACH = 5
KINDS = 4
ENQUEUE = f"""
import time, uuid
from datetime import UTC, datetime, timedelta
from tasks import complete
for _ in range({EACH}):
    for options, celerys in (
        ({{"deadline_s": 600}}, {{}}),
        ({{}}, {{"expires": 600}}),
        ({{"deadline_s": 600}}, {{"countdown": 3, "expires": 600}}),
        ({{}}, {{"countdown": 0.3}}),
    ):
        prompt = f"prompt {{uuid.uuid4()}}"
        print(complete.apply_async(("coder", prompt), options, **celerys).id)
"""
PATIENT = f"""
from tasks import complete
for number in range({EACH * KINDS}):
    print(complete.apply_async(("coder", f"prompt {{number}}"), countdown=number % 2 * 3).id)
"""


@pytest.fixture
def clock() -> Iterator[WrongClock]:
    """Right, until it is set."""
    clock = WrongClock()
    yield clock
    clock.close()


def assert_answered_once(client: Any, workers: Fleet, simulator: Simulator, ids: list[str]) -> None:
    """Nothing is lost, expired, buried or paid for twice."""
    wait_until_drained(client, workers, 120, "role.coder")
    wait_for(lambda: not account(client, simulator, ids).lost, 60, workers.logs)
    found = account(client, simulator, ids)
    assert (found.statuses, found.paid, found.buried) == ({"SUCCESS": len(ids)}, len(ids), []), (
        workers.logs()[-3000:]
    )


def swept(client: Any) -> int:
    """When a worker has last looked after what is held, by Redis' clock."""
    return int(client.hget("delivery:clock", "swept_ms"))


@pytest.mark.parametrize(
    ("off_s", "pool"), [(-40, "threads"), (HOUR, "threads"), (HOUR, "prefork"), (-HOUR, "gevent")]
)
def test_a_worker_that_is_wrong_about_the_time_serves_like_any(
    workers: Fleet, simulator: Simulator, client: Any, clock: WrongClock, off_s: int, pool: str
) -> None:
    """It neither expires nor buries a prompt, and does not ask Redis again and again."""
    clock.set(off_s)
    start_by(workers, clock, pool)
    client.config_resetstat()

    ids = workers.run(ENQUEUE).split()

    assert_answered_once(client, workers, simulator, ids)
    calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
    assert calls["cmdstat_evalsha"] < 100 * EACH * KINDS
    assert client.zcard("delayed") == client.hlen("delayed:messages") == 0


def test_a_workers_clock_that_jumps_cuts_no_call(
    workers: Fleet, simulator: Simulator, client: Any, clock: WrongClock
) -> None:
    """Nor does it lose a lease, or let what it holds expire."""
    start_by(workers, clock, concurrency=4)
    simulator.settings("claude", latency="held")
    ids = workers.run(ENQUEUE).split()
    wait_for(lambda: simulator.in_flight("claude") == 4, 60, workers.logs)

    for off_s in (HOUR, -HOUR, -40, 0, HOUR):
        clock.set(off_s)
        seen = swept(client)
        wait_for(lambda seen=seen: swept(client) != seen, 60)
    simulator.settings("claude", latency=0)
    simulator.release("claude")

    assert_answered_once(client, workers, simulator, ids)
    assert not client.hexists("delivery", "recovered")


@pytest.mark.parametrize("off_s", [-40, HOUR, -HOUR])
def test_a_producer_that_is_wrong_about_the_time_loses_nothing(
    workers: Fleet, simulator: Simulator, client: Any, clock: WrongClock, off_s: int
) -> None:
    """A deadline, a countdown and an expiry in seconds run from when Redis stored the prompt."""
    clock.set(off_s)
    workers.start(1)

    workers.environ, right = {**workers.environ, **clock.environ()}, workers.environ
    ids = workers.run(ENQUEUE).split()
    workers.environ = right

    assert_answered_once(client, workers, simulator, ids)


@pytest.mark.parametrize(
    ("off_s", "enqueue"), [(-HOUR, ENQUEUE), (HOUR // 12, ENQUEUE), (HOUR // 2, PATIENT)]
)
def test_a_servers_clock_that_steps_strands_nothing(
    simulator: Simulator, clock: WrongClock, off_s: int, enqueue: str
) -> None:
    """A step back lengthens nothing; a step forward takes no task from who runs it."""
    with (
        Server(environ=server_environ(clock)) as server,
        fleet(server.url, roles_over(simulator)) as workers,
    ):
        workers.start(2, "threads", 4)
        simulator.settings("claude", latency="held")
        ids = workers.run(enqueue).split()
        wait_for(lambda: simulator.in_flight("claude") == 8, 60, workers.logs)

        clock.set(off_s)
        for _ in range(6):
            seen = swept(server.client)
            wait_for(lambda seen=seen: swept(server.client) != seen, 60)
        simulator.settings("claude", latency=0)
        simulator.release("claude")

        assert_answered_once(server.client, workers, simulator, ids)
        assert not server.client.hexists("delivery", "recovered")

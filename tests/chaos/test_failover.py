"""The master dies, a replica takes over; or Redis refuses for a while: workers go on by themselves."""

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from simulator.client import Simulator
from tests.support.chaos import account, enqueue, roles_over, wait_until_drained
from tests.support.fleet import fleet, wait_for
from tests.support.servers import Process, Sentinels, sentinels

LONG = (pytest.mark.long, pytest.mark.timeout(1800))


@pytest.fixture
def watched() -> Iterator[Sentinels]:
    """A master, a replica and three Sentinels of one's own."""
    with sentinels(fails_over_after_ms=1000) as running:
        yield running


@pytest.mark.parametrize(
    ("pool", "tasks", "times"),
    [
        ("threads", 60, 1),
        *(pytest.param(p, 150, 4, marks=LONG) for p in ("threads", "prefork", "gevent")),
    ],
)
def test_a_failover_under_load_loses_no_task(
    watched: Sentinels, simulator: Simulator, pool: str, tasks: int, times: int
) -> None:
    """
    Of what the replica had; the dead master comes back as its replica.

    What was acknowledged in the last milliseconds and not sent to the replica is forgotten: takes
    and settlements, so that those tasks run, and are paid for, again.
    """
    with fleet(watched.url, roles_over(simulator)) as workers:
        workers.environ["SPOOL_DIR"] = str(workers.folder / "spool")
        workers.start(2, pool, 8)
        ids: list[str] = []

        for _ in range(times):
            # Anew for each: while the dead master comes back, the last ones are answered.
            simulator.settings("claude", latency="held")
            ids += enqueue(workers, tasks)
            assert watched.master.client.execute_command("WAIT", 1, 5000) == 1
            wait_for(lambda: simulator.in_flight("claude") > 4, 30, workers.logs)
            old = watched.master
            (other,) = [each for each in watched.data if each is not old]
            before = len(simulator.hits("claude"))
            old.kill()
            simulator.release("claude")
            since = time.monotonic()
            wait_for(lambda port=other.port: watched.promoted(port), 60)
            promoted_s = time.monotonic() - since
            wait_for(lambda n=before: len(simulator.hits("claude")) > n, 60, workers.logs)
            print(f"promoted after {promoted_s:.1f} s, working {time.monotonic() - since:.1f} s")
            old.start()
            if times > 1:
                wait_for(lambda s=old: _follows(s), 60)
        wait_until_drained(watched.master.client, workers, 60 + tasks * times, "role.coder")

        found = account(watched.master.client, simulator, ids)
    print(found)
    assert found.lost == []
    assert set(found.statuses) == {"SUCCESS"}
    assert found.again <= 16 * times


def _follows(server: Process) -> bool:
    info = server.client.info()
    return info["role"] == "slave" and info["master_link_status"] == "up"


def read_only(client: Any) -> Callable[[], object]:
    client.replicaof("127.0.0.1", "1")
    return lambda: client.replicaof("NO", "ONE")


def too_few_replicas(client: Any) -> Callable[[], object]:
    client.config_set("min-replicas-to-write", "1")
    return lambda: client.config_set("min-replicas-to-write", "0")


def no_rights(client: Any) -> Callable[[], object]:
    client.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval", "-brpop", "-publish")
    return lambda: client.execute_command("ACL", "SETUSER", "default", "+@all")


def no_disk(client: Any) -> Callable[[], object]:
    shutil.rmtree(client.config_get("dir")["dir"])  # a snapshot fails, and with it every write
    client.config_set("save", "3600 1")
    client.bgsave()
    wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    return lambda: client.config_set("stop-writes-on-bgsave-error", "no")


@pytest.mark.parametrize("refuse", [read_only, too_few_replicas, no_rights, no_disk])
def test_a_redis_that_refuses_for_a_while_is_waited_for(
    refuse: Callable[[Any], Callable[[], object]], simulator: Simulator
) -> None:
    """READONLY, NOREPLICAS, NOPERM, MISCONF: paid answers are kept, tasks that wait are not lost."""
    simulator.settings("claude", latency="held")
    with (
        Process("--save", "") as server,
        fleet(f"redis://127.0.0.1:{server.port}/0", roles_over(simulator)) as workers,
    ):
        workers.environ["SPOOL_DIR"] = str(workers.folder / "spool")
        workers.start(1, "threads", 4)
        ids = enqueue(workers, 12)
        wait_for(lambda: simulator.in_flight("claude") == 4)

        mend = refuse(server.client)
        simulator.release("claude")
        wait_for(lambda: not simulator.in_flight("claude"))
        time.sleep(2)
        mend()
        wait_until_drained(server.client, workers, 60, "role.coder")

        found = account(server.client, simulator, ids)
    assert (found.lost, set(found.statuses), found.again) == ([], {"SUCCESS"}, 0)
    assert workers.workers[0].poll() is not None

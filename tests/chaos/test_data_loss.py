"""Redis loses all it knows while calls are out: every answer that a living worker holds counts."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from simulator.client import Simulator
from tests.support.chaos import account, enqueue, kill, roles_over
from tests.support.fleet import fleet, wait_for
from tests.support.valkey import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NUMBER = 10
Lose = Callable[[Server], None]


def flush(server: Server) -> None:
    """FLUSHALL, by somebody who thought it was another server."""
    server.client.flushall()


def replace(server: Server) -> None:
    """Kill the server; an empty one comes up on its port."""
    server.kill()
    server.forget()
    server.start()


def settled(client: Any, ids: list[str]) -> int:
    metas = [client.get(f"celery-task-meta-{task_id}") for task_id in ids]
    return sum(json.loads(meta)["status"] == "SUCCESS" for meta in metas if meta)


@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent"])
@pytest.mark.parametrize("lose", [flush, replace])
def test_every_call_that_is_out_is_answered_and_paid_once(
    simulator: Simulator, pool: str, lose: Lose
) -> None:
    """No call is cut off, none is made again, and nothing is left behind."""
    simulator.settings("claude", latency="held")
    with Server() as server, fleet(server.url, roles_over(simulator)) as workers:
        workers.environ["SPOOL_DIR"] = str(workers.folder / "spool")
        workers.start(2, pool, NUMBER // 2)
        ids = enqueue(workers, NUMBER)
        wait_for(lambda: simulator.in_flight("claude") == NUMBER, 120, workers.logs)

        lose(server)
        wait_for(lambda: server.client.hlen("taken") == NUMBER, 120, workers.logs)
        held = simulator.in_flight("claude")
        simulator.release("claude")

        wait_for(lambda: settled(server.client, ids) == NUMBER, 120, workers.logs)
        wait_for(lambda: not server.client.exists("taken", "role.coder"), 60, workers.logs)
        found = account(server.client, simulator, ids)
        assert (held, found.paid, found.again, found.lost) == (NUMBER, NUMBER, 0, [])
        assert int(server.client.hget("delivery", "restored")) == NUMBER
        assert "delivery.data_lost" in workers.logs()


def test_a_worker_that_dies_after_the_loss_loses_nothing(simulator: Simulator) -> None:
    """What it had restored goes back to its queue, and only its calls are paid for again."""
    simulator.settings("claude", latency="held")
    with Server() as server, fleet(server.url, roles_over(simulator)) as workers:
        workers.start(2, "threads", NUMBER // 2)
        ids = enqueue(workers, NUMBER)
        wait_for(lambda: simulator.in_flight("claude") == NUMBER, 120, workers.logs)
        flush(server)
        wait_for(lambda: server.client.hlen("taken") == NUMBER, 120, workers.logs)

        kill(workers, 0)
        simulator.settings("claude", latency=0.1)
        simulator.release("claude")

        wait_for(lambda: settled(server.client, ids) == NUMBER, 180, workers.logs)
        found = account(server.client, simulator, ids)
        assert found.lost == []
        assert found.again <= NUMBER // 2


def test_tasks_that_have_to_wait_after_the_loss_wait(simulator: Simulator) -> None:
    """Their provider fails them meanwhile; they are put back with the messages that Redis lost."""
    simulator.settings("claude", latency="held")
    simulator.fault("claude", kind="overloaded", latency="held")
    with Server() as server, fleet(server.url, roles_over(simulator)) as workers:
        workers.start(1, "threads", 4)
        ids = enqueue(workers, 4)
        wait_for(lambda: simulator.in_flight("claude") == 4, 120, workers.logs)

        flush(server)
        simulator.heal("claude")
        simulator.release("claude")
        simulator.settings("claude", latency=0)

        wait_for(lambda: settled(server.client, ids) == 4, 180, workers.logs)


def test_what_a_worker_could_not_settle_is_not_called_again(simulator: Simulator) -> None:
    """Redis freezes, the worker is ended, Redis goes on, another worker starts: nothing is paid twice."""
    simulator.settings("claude", latency="held")
    with Server() as server, fleet(server.url, roles_over(simulator)) as workers:
        workers.environ["SPOOL_DIR"] = str(workers.folder / "spool")
        workers.environ["BREAKWATER_GRACE_S"] = "15"
        workers.start(1, "threads", 15)
        ids = enqueue(workers, 15)
        wait_for(lambda: simulator.in_flight("claude") == 15, 120, workers.logs)

        server.freeze()
        simulator.release("claude")
        spool = workers.folder / "spool"
        wait_for(lambda: len(list(spool.glob("*.json"))) == 15, 120, workers.logs)
        os.killpg(workers.workers[0].pid, signal.SIGTERM)
        workers.workers[0].wait(120)
        server.thaw()
        simulator.settings("claude", latency=0)
        workers.start(1, "threads", 15)

        wait_for(lambda: settled(server.client, ids) == 15, 180, workers.logs)
        wait_for(lambda: not server.client.exists("taken", "role.coder"), 60, workers.logs)
        found = account(server.client, simulator, ids)
        assert (found.paid, found.again, found.lost) == (15, 0, [])
        assert list(spool.glob("*.json")) == []

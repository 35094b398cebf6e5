"""Deploys, impatient operators and cancelled tasks: nothing is lost, little is paid for twice."""

import json
import signal
import time
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import Fleet, wait_for

POOLS = ["threads", "prefork", "gevent"]
ENQUEUE = (
    "from tasks import complete\nfor _ in range(%d): print(complete.delay('clarifier', 'hi').id)"
)


def enqueue(workers: Fleet, number: int) -> list[str]:
    return workers.run(ENQUEUE % number).split()


def meta(client: Any, task_id: str) -> dict[str, Any] | None:
    stored = client.get(f"celery-task-meta-{task_id}")
    return json.loads(stored) if stored else None


@pytest.fixture
def client(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url, decode_responses=True)


@pytest.mark.parametrize("pool", POOLS)
def test_a_stopping_worker_finishes_what_it_runs_and_leaves_the_rest(
    workers: Fleet, simulator: Simulator, client: Any, pool: str
) -> None:
    """SIGTERM: nothing new is taken, nothing runs twice, nothing is lost."""
    simulator.settings("claude", latency="held")
    workers.start(1, pool, 4)
    ids = enqueue(workers, 10)
    wait_for(lambda: simulator.in_flight("claude") == 4)

    workers.workers[0].send_signal(signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in workers.log(), explain=workers.log)
    simulator.release("claude")
    workers.workers[0].wait(180)

    assert workers.workers[0].returncode == 0
    assert len(simulator.hits("claude")) == 4
    assert sum(meta(client, each) is not None for each in ids) == 4
    assert client.llen("role.clarifier") == 6
    assert not client.exists("taken")


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("how", ["grace", "second SIGTERM", "SIGQUIT"])
def test_what_cannot_be_finished_goes_back_at_once(
    workers: Fleet, simulator: Simulator, client: Any, pool: str, how: str
) -> None:
    """The calls are cut off, the tasks are at the heads of their queues, and their calls counted."""
    simulator.settings("claude", latency="held")
    workers.start(1, pool, 4, "--grace", "1" if how == "grace" else "600")
    ids = enqueue(workers, 6)
    wait_for(lambda: simulator.in_flight("claude") == 4)

    if how == "SIGQUIT":
        workers.workers[0].send_signal(signal.SIGQUIT)
    else:
        workers.workers[0].send_signal(signal.SIGTERM)
    if how == "second SIGTERM":
        wait_for(lambda: "Warm shutdown" in workers.log())
        workers.workers[0].send_signal(signal.SIGTERM)
    workers.workers[0].wait(180)

    assert client.llen("role.clarifier") == 6
    assert not client.exists("taken")
    simulator.settings("claude", latency=0)
    workers.start(1, "threads", 4)
    wait_for(lambda: all(meta(client, each) for each in ids), 30, workers.logs)
    results = [meta(client, each)["result"] for each in ids]
    assert [r["text"] != "" for r in results] == [True] * 6
    assert sum(r.get("duplicates", 0) for r in results) == 4
    assert int(client.hget("delivery", "duplicates")) == 4
    lost = [a for r in results for a in r["attempts"] if a["error"] == "WorkerLost"]
    assert len(lost) == 4


@pytest.mark.parametrize("pool", POOLS)
def test_a_storm_of_signals_ends_it(
    workers: Fleet, simulator: Simulator, client: Any, pool: str
) -> None:
    """One that interrupts the handling of another took the lock that the other held."""
    simulator.settings("claude", latency="held")
    workers.start(1, pool, 4, "--grace", "600")
    enqueue(workers, 6)
    wait_for(lambda: simulator.in_flight("claude") == 4)
    (worker,) = workers.workers

    ends_at = time.monotonic() + 1
    while time.monotonic() < ends_at and worker.poll() is None:
        worker.send_signal(signal.SIGTERM)

    worker.wait(180)
    assert (client.llen("role.clarifier"), client.exists("taken")) == (6, 0)


def test_a_waiting_task_that_is_cancelled_is_never_paid_for(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """Also when every worker that was told has been restarted since."""
    told = workers.run(
        "from tasks import complete\n"
        "from celery.exceptions import TaskRevokedError\n"
        "result = complete.delay('clarifier', 'hi')\n"
        "result.cancel()\n"
        "try: result.get(timeout=180)\n"
        "except TaskRevokedError as error: print(result.state)"
    )
    workers.start()

    wait_for(lambda: not client.llen("role.clarifier") and not client.exists("taken"))

    assert told.strip() == "REVOKED"
    assert simulator.hits("claude") == []


@pytest.mark.parametrize("pool", POOLS)
def test_a_running_task_that_is_cancelled_frees_its_slot(
    workers: Fleet, simulator: Simulator, client: Any, pool: str
) -> None:
    """Its call is cut off, and the next task runs; its result stays the cancellation."""
    simulator.settings("claude", latency="held")
    workers.start(1, pool, 1)
    running, waiting = enqueue(workers, 2)
    wait_for(lambda: simulator.in_flight("claude") == 1)
    simulator.settings("claude", latency=0)

    workers.run(f"from tasks import app; app.AsyncResult({running!r}).cancel()")

    wait_for(lambda: meta(client, waiting), 30, workers.logs)
    assert meta(client, waiting)["status"] == "SUCCESS"
    assert meta(client, running)["status"] == "REVOKED"
    wait_for(lambda: not client.exists("taken"))
    assert "delivery.lost" not in workers.logs()  # nothing was: somebody wanted it so

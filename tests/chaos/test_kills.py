"""Workers are killed, frozen and redeployed: nothing is lost, and what was paid twice is counted."""

import json
import os
import random
import signal
import threading
from typing import Any

import pytest
from celery.backends.redis import CHORD_PART_RETURN_LUA

from simulator.client import Simulator
from tasks.delivery.delivery_store import LEASE_MS, DeliveryStore
from tasks.delivery.lease_keeper import RENEWAL_INTERVAL_S
from tests.support.chaos import (
    Killer,
    TakeWindow,
    account,
    enqueue,
    kill,
    wait_until_drained,
)
from tests.support.fleet import Fleet, fleet, wait_for

LONG = (pytest.mark.long, pytest.mark.timeout(1800))


@pytest.mark.parametrize(
    ("pool", "tasks", "for_s"),
    [
        ("threads", 100, 5),
        *(
            pytest.param(pool, 5_000, 300, marks=LONG, id=f"{pool}-long")
            for pool in ("threads", "prefork", "gevent")
        ),
    ],
)
def test_no_kill_loses_a_task(
    workers: Fleet, simulator: Simulator, client: Any, pool: str, tasks: int, for_s: float
) -> None:
    """
    A worker is killed every 2 s; every id is accounted for.

    A call in five meets a kill; with 5,000 tasks one or two meet five in a row, and are buried.
    """
    seed = random.SystemRandom().randrange(10**6)
    simulator.settings("claude", latency="uniform:0.1:2.0")
    workers.start(3, pool, 8)
    ids = enqueue(workers, tasks)

    killer = Killer(workers, simulator, pool, seed)
    killer.run(for_s)
    wait_until_drained(client, workers, 120 + tasks / 8, "role.coder")

    found = account(client, simulator, ids)
    print(f"seed {seed}: {killer.kills} kills, {killer.in_flight} calls out at them; {found}")
    assert found.settled
    assert found.again <= killer.in_flight
    assert found.counted == found.shown
    # A kill in the microseconds between the note and the first byte counts one that was not paid.
    assert found.again <= found.counted <= found.again + max(1, killer.kills // 10)


@pytest.mark.parametrize(("tasks", "kills"), [(40, 3), pytest.param(1_000, 40, marks=LONG)])
def test_no_kill_in_the_take_window_loses_a_task(
    redis_url: str, workers: Fleet, simulator: Simulator, client: Any, tasks: int, kills: int
) -> None:
    """Redis has given the messages away, and whoever asked for them is dead."""
    port = client.connection_pool.connection_kwargs["port"]
    victims: list[int] = []
    window = TakeWindow(
        port, DeliveryStore(client).script("take").sha, lambda: kill(exposed, victims[-1])
    )
    relayed = redis_url.replace(f":{port}", f":{window.port}")
    with fleet(relayed, workers.roles_file.read_text()) as exposed:
        ids = []
        for _ in range(kills):
            ids += enqueue(workers, tasks // kills)
            window.armed = True
            victims.append(exposed.start_one("threads", 4))
            exposed.workers[victims[-1]].wait(180)
        window.close()
    workers.start(1)
    wait_until_drained(client, workers, 60 + tasks / 10, "role.coder")

    found = account(client, simulator, ids)
    print(f"{kills} kills in the window; {found}")
    assert found.lost == []
    assert (found.again, found.counted) == (0, 0)
    assert int(client.hget("delivery", "recovered")) >= kills


@pytest.mark.parametrize("ends", ["connection", "worker"])
def test_a_take_whose_reply_is_lost_is_given_back_at_once(
    redis_url: str, workers: Fleet, simulator: Simulator, client: Any, ends: str
) -> None:
    """Not by the sweep that looks for the dead: whoever asked lives, or stops in good order."""
    port = client.connection_pool.connection_kwargs["port"]

    def strike() -> None:
        if ends == "worker":
            exposed.workers[0].send_signal(signal.SIGTERM)

    window = TakeWindow(port, DeliveryStore(client).script("take").sha, strike)
    relayed = redis_url.replace(f":{port}", f":{window.port}")
    with fleet(relayed, workers.roles_file.read_text()) as exposed:
        exposed.start(1, "threads", 4)
        window.armed = True
        ids = enqueue(workers, 3)
        if ends == "worker":
            exposed.workers[0].wait(180)
            assert (client.llen("role.coder"), client.exists("taken")) == (3, 0)
            workers.start(1)
        wait_until_drained(client, workers, 60, "role.coder")
        window.close()

    found = account(client, simulator, ids)
    assert (found.lost, found.again, window.armed) == ([], 0, False)
    assert not client.hexists("delivery", "recovered")


def test_a_connection_that_has_gone_silent_is_given_up(
    redis_url: str, workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """As behind a firewall that forgets it: nobody closes it, and no reply comes."""
    port = client.connection_pool.connection_kwargs["port"]
    window = TakeWindow(port, DeliveryStore(client).script("take").sha, lambda: None, silently=True)
    relayed = redis_url.replace(f":{port}", f":{window.port}")
    with fleet(relayed, workers.roles_file.read_text()) as exposed:
        exposed.start(1, "threads", 4)
        window.armed = True
        ids = enqueue(workers, 3)

        wait_for(lambda: "dropping stale connection" in exposed.log(), 30, exposed.logs)
        wait_until_drained(client, exposed, 30, "role.coder")
        window.close()

    found = account(client, simulator, ids)
    assert (found.lost, found.again, window.armed) == ([], 0, False)


@pytest.mark.parametrize("then", ["chain", "chord"])
def test_what_follows_a_task_survives_a_kill_right_after_its_settlement(
    redis_url: str, workers: Fleet, simulator: Simulator, client: Any, then: str
) -> None:
    """The next stage is queued after the answer is settled; whoever finds it settled does that."""
    simulator.settings("claude", answer="echo")
    port = client.connection_pool.connection_kwargs["port"]
    window = TakeWindow(port, DeliveryStore(client).script("settle").sha, lambda: kill(exposed, 0))
    relayed = redis_url.replace(f":{port}", f":{window.port}")
    first = 'complete.s("coder", "<first>")'
    header = first if then == "chain" else f'group({first}, complete.s("other", "<other>"))'
    with fleet(relayed, workers.roles_file.read_text()) as exposed:
        exposed.start(1, "threads", 1)
        window.armed = True
        workers.run(f"""
from celery import chain, group
from tasks import complete
chain({header}, complete.s("coder").set(task_id="last")).delay()
""")
        exposed.workers[0].wait(180)
        window.close()
    workers.start(1)

    meta = json.loads(
        wait_for(lambda: client.get("celery-task-meta-last"), 60, lambda: workers.logs()[-5000:])
    )
    assert meta["status"] == "SUCCESS"
    assert "<first>" in meta["result"]["text"]
    assert len(simulator.hits("claude")) == 2


def test_a_chord_is_completed_though_the_reply_to_its_last_part_is_lost(
    redis_url: str, workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """It was counted, and nobody was told that it was the last."""
    simulator.settings("gpt", latency="held")
    port = client.connection_pool.connection_kwargs["port"]
    count = client.register_script(CHORD_PART_RETURN_LUA).sha
    window = TakeWindow(port, count, lambda: None)
    relayed = redis_url.replace(f":{port}", f":{window.port}")
    with fleet(relayed, workers.roles_file.read_text()) as exposed:
        exposed.start(1, "threads", 2)
        workers.run("""
from celery import chord
from tasks import complete
chord([complete.s("coder", "a"), complete.s("other", "b")])(complete.s("coder").set(task_id="body"))
""")
        wait_for(lambda: client.keys("celery-taskset-meta-*.j"))
        window.armed = True
        simulator.release("gpt")

        meta = wait_for(lambda: client.get("celery-task-meta-body"), 40, exposed.logs)
        window.close()

    assert (json.loads(meta)["status"], window.armed) == ("SUCCESS", False)
    assert len(simulator.hits("claude")) == 2


@pytest.mark.promise
@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=LONG)])
def test_a_killed_workers_task_starts_elsewhere_within_15_s(
    workers: Fleet, simulator: Simulator, client: Any, pool: str
) -> None:
    """By default: so long are its lease and the pause between two looks, if nothing is slow."""
    assert LEASE_MS / 1000 + RENEWAL_INTERVAL_S < 15
    simulator.settings("claude", latency="held")
    workers.start(1, pool, 1)
    enqueue(workers, 1)
    wait_for(lambda: simulator.in_flight("claude") == 1)
    workers.start(1, pool, 1)
    wait_for(lambda: client.hget("delivery:clock", "swept_ms"))

    kill(workers, 0)
    wait_for(lambda: len(simulator.hits("claude")) == 2, explain=workers.logs)

    kill(workers, 1)  # or the end of the test would wait for its call


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent"])
def test_a_call_of_five_leases_runs_once(
    workers: Fleet, simulator: Simulator, client: Any, pool: str
) -> None:
    """A living worker is never robbed."""
    workers.roles_file.write_text(
        workers.roles_file.read_text().replace(
            "api_key: k,", "api_key: k, timeout: {total_s: 200},"
        )
    )
    simulator.settings("claude", latency=5 * LEASE_MS / 1000)
    workers.start(2, pool, 1)
    ids = enqueue(workers, 2)

    wait_until_drained(client, workers, 120, "role.coder")

    found = account(client, simulator, ids)
    assert (found.paid, found.counted, found.lost) == (2, 0, [])


def test_a_task_id_enqueued_a_hundred_times_is_paid_for_once(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """From ten processes at once; everybody gets the one result."""
    simulator.settings("claude", latency=0.5)
    workers.start(2, "threads", 16)
    code = (
        "from tasks import complete\n"
        "those = [complete.apply_async(('coder', 'hi'), task_id='the-one') for _ in range(10)]\n"
        "print({r.get(timeout=180)['request_id'] for r in those})"
    )
    told: list[str] = []
    askers = [
        threading.Thread(target=lambda: told.append(workers.run(code).strip())) for _ in range(10)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()

    wait_until_drained(client, workers, 30, "role.coder")
    assert len(told) == 10
    assert len(set(told)) == 1
    assert len(simulator.hits("claude")) == 1


def test_a_worker_that_slept_with_its_call_out_settles_nothing_twice(
    workers: Fleet, simulator: Simulator, client: Any
) -> None:
    """SIGSTOP past the lease: its call was out, so it is paid for twice and counted; one result."""
    simulator.settings("claude", latency="held")
    workers.start(1, "threads", 1)
    ids = enqueue(workers, 1)
    wait_for(lambda: simulator.in_flight("claude") == 1)
    os.killpg(workers.workers[0].pid, signal.SIGSTOP)
    simulator.release("claude")
    workers.start(1, "threads", 1)
    wait_for(lambda: client.exists(f"celery-task-meta-{ids[0]}"), 60, workers.logs)
    first = client.get(f"celery-task-meta-{ids[0]}")

    os.killpg(workers.workers[0].pid, signal.SIGCONT)
    wait_for(lambda: int(client.hget("delivery", "superseded") or 0) or "ignored" in workers.log())

    found = account(client, simulator, ids)
    assert client.get(f"celery-task-meta-{ids[0]}") == first
    assert (found.paid, found.again, found.counted) == (2, 1, 1)


@pytest.mark.parametrize(("options", "counted"), [({"stream": True}, 0), ({}, 1)])
def test_a_worker_that_slept_before_its_call_does_not_pay(
    redis_url: str,
    workers: Fleet,
    simulator: Simulator,
    client: Any,
    options: dict[str, Any],
    counted: int,
) -> None:
    """
    It had begun and was about to call; somebody else has done it meanwhile.

    Where it begins with its call, that was noted: nobody can know that it did not go out.
    """
    port = client.connection_pool.connection_kwargs["port"]
    stopped = threading.Event()

    def freeze() -> None:
        os.killpg(sleeper.workers[0].pid, signal.SIGSTOP)
        stopped.set()

    window = TakeWindow(port, DeliveryStore(client).script("begin").sha, freeze)
    relayed = redis_url.replace(f":{port}", f":{window.port}")
    with fleet(relayed, workers.roles_file.read_text()) as sleeper:
        sleeper.start(1, "threads", 1)
        window.armed = True
        ask = f"print(complete.delay('coder', 'hi', **{options}).id)"
        ids = workers.run(f"from tasks import complete; {ask}").split()
        assert stopped.wait(180)
        workers.start(1, "threads", 1)
        wait_for(lambda: client.exists(f"celery-task-meta-{ids[0]}"), 60, workers.logs)

        os.killpg(sleeper.workers[0].pid, signal.SIGCONT)
        wait_for(lambda: not client.exists("taken"))
        window.close()

    found = account(client, simulator, ids)
    assert (found.paid, found.counted) == (1, counted)


@pytest.mark.parametrize(
    ("pool", "tasks"),
    [
        ("threads", 60),
        *(pytest.param(p, 1_000, marks=LONG) for p in ("threads", "prefork", "gevent")),
    ],
)
def test_a_rolling_restart_is_invisible(
    workers: Fleet, simulator: Simulator, client: Any, pool: str, tasks: int
) -> None:
    """Four workers are replaced one by one under load: no error, nothing paid for twice."""
    simulator.settings("claude", latency="uniform:0.1:1.0")
    workers.start(4, pool, 4)
    ids = enqueue(workers, tasks)

    for number in range(4):
        workers.start_one(pool, 4)
        workers.workers[number].send_signal(signal.SIGTERM)
        workers.workers[number].wait(180)
    wait_until_drained(client, workers, 60 + tasks / 4, "role.coder")

    found = account(client, simulator, ids)
    print(found)
    assert found.lost == []
    assert set(found.statuses) == {"SUCCESS"}
    assert (found.again, found.counted) == (0, 0)

"""A role whose providers are all down: its queue waits in Redis, and costs next to nothing."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from simulator.client import Simulator
from tests.support.chaos import account, enqueue, wait_until_drained
from tests.support.fleet import Fleet, wait_for


def memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def parked_for_s(client: Any) -> float:
    """Return how long the queue stays as it is."""
    state = json.loads(client.hget("parked", "role.coder") or "{}")
    return float(state.get("until_ms", 0)) / 1000 - time.time()


def commands(client: Any, for_s: float) -> float:
    """Count what clients send a second; what scripts do inside is not sent."""
    ends_at, sent = time.monotonic() + for_s, 0
    with client.monitor() as monitor:
        for told in monitor.listen():
            sent += told["client_type"] != "lua"
            if time.monotonic() > ends_at:
                return sent / for_s
    return 0.0


@pytest.mark.parametrize(
    ("tasks", "down_s", "reset_s"),
    [
        (200, 4, 30),
        pytest.param(100_000, 60, 30, marks=(pytest.mark.long, pytest.mark.timeout(3600))),
    ],
)
def test_a_role_without_a_provider_waits_in_redis(
    workers: Fleet, simulator: Simulator, client: Any, tasks: int, down_s: float, reset_s: int
) -> None:
    """Its tasks are tried a few at a time, other roles run on, and all are answered in the end."""
    workers.roles_file.write_text(
        workers.roles_file.read_text().replace(
            'api_key: k, base_url: "' + simulator.url("claude"),
            f'api_key: k, breaker: {{reset_timeout_s: {reset_s}}}, base_url: "'
            + simulator.url("claude"),
        )
    )
    simulator.fault("claude", status=503)
    simulator.settings("gpt", latency=0.1)
    down_at = time.monotonic()
    workers.start(2, "threads", 16)
    alone = time.monotonic()
    enqueue(workers, 100, "other")
    wait_until_drained(client, workers, 60, "role.other")
    alone_s = time.monotonic() - alone
    ids = enqueue(workers, tasks)
    wait_for(lambda: client.hexists("parked", "role.coder"))
    wait_for(lambda: not client.xlen("ledger"), 30)  # its database is loaded with the first rows
    before_mb = memory_mb(workers.workers[0].pid)
    # Each of seven things is done every 1 to 5 s: a short window counts one of each too many.
    window_s = reset_s / 3
    # The few that are let through ask for more.
    wait_for(lambda: parked_for_s(client) > window_s * 2, reset_s * 2)
    time.sleep(1)
    rate = commands(client, window_s) / 2

    beside = time.monotonic()
    others = enqueue(workers, 100, "other")
    wait_for(lambda: not client.llen("role.other"), 60)
    beside_s = time.monotonic() - beside
    time.sleep(down_s)
    grown_mb = memory_mb(workers.workers[0].pid) - before_mb
    state = json.loads(client.hget("parked", "role.coder"))
    asked, was_down_s = len(simulator.hits("claude")), time.monotonic() - down_at
    simulator.heal("claude")
    healed_ms = time.time() * 1000
    took_s = wait_until_drained(client, workers, 60 + tasks / 50, "role.coder")

    found = account(client, simulator, ids)
    events = [event for _, event in client.xrange("parked:events")]
    probes = [
        hit
        for hit in simulator.hits("claude")
        if healed_ms < hit["started_at_ms"] < int(events[-1]["at_ms"])
    ]
    print(
        f"{rate:.1f} commands a second and worker while parked, {grown_mb:+.1f} MB, other role "
        f"{alone_s:.1f} s alone and {beside_s:.1f} s beside, {asked} calls while down, "
        f"{len(probes)} before the queue was opened, {took_s:.1f} s to answer {tasks}; {found}"
    )
    assert state["reason"].startswith("claude is ")
    assert found.lost == []
    assert set(found.statuses) == {"SUCCESS"}
    assert all(client.exists(f"celery-task-meta-{each}") for each in others)
    assert asked <= 32 + 5 + 2 * (was_down_s / reset_s + 1)
    assert grown_mb < 20
    assert rate < 5
    requeues = [
        len(json.loads(client.get(f"celery-task-meta-{each}"))["result"]["attempts"]) - 1
        for each in ids
    ]
    assert max(requeues) <= 3 * 2  # a call that failed, and the refusals that put it back
    assert [events[0]["to"], events[-1]["to"]] == ["parked", "open"]
    assert 1 <= len(probes) <= 2  # as many as the breaker wants to see before it closes

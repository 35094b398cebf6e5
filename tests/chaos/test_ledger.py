"""The ledger while workers, Redis and the database die: each call is in it, once."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.client import Simulator
from tasks.ledger.attempt_filter import AttemptFilter
from tasks.ledger.database import Database
from tasks.ledger.export import export
from tests.support.chaos import Killer, account, enqueue, roles_over, wait_until_drained
from tests.support.fleet import Fleet, fleet, wait_for
from tests.support.postgres import postgres
from tests.support.valkey import Server

LONG = (pytest.mark.long, pytest.mark.timeout(1800))


@pytest.fixture
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
    else:
        with postgres() as url:
            yield url


def calls_in(url: str) -> list[dict[str, Any]]:
    with Database(url) as database:
        return [row for row in export(database, AttemptFilter()) if row["outcome"] != "rejected"]


@pytest.mark.parametrize(
    ("pool", "ledger_url", "tasks", "for_s"),
    [
        ("threads", "sqlite", 80, 5),
        *(
            pytest.param(pool, kind, 2_000, 120, marks=LONG)
            for pool, kind in [("threads", "sqlite"), ("prefork", "postgres"), ("gevent", "sqlite")]
        ),
    ],
    indirect=["ledger_url"],
)
def test_no_kill_loses_or_doubles_a_row(
    workers: Fleet, simulator: Simulator, client: Any, pool: str, ledger_url: str, tasks: int,
    for_s: float,
) -> None:  # fmt: skip
    """Whoever is killed, one that drains too: every call that reached the provider has its row."""
    simulator.settings("claude", latency="uniform:0.1:2.0")
    workers.environ["LEDGER_URL"] = ledger_url
    workers.start(3, pool, 8)
    ids = enqueue(workers, tasks)

    killer = Killer(workers, simulator, pool, seed=tasks)
    killer.run(for_s)
    wait_until_drained(client, workers, 120 + tasks / 8, "role.coder")
    wait_for(lambda: client.xlen("ledger") == 0, 40, workers.logs)

    found, hits = account(client, simulator, ids), simulator.hits("claude")
    calls = calls_in(ledger_url)
    answered = [call for call in calls if call["outcome"] == "succeeded"]
    print(
        f"{killer.kills} kills, {len(hits)} hits, {Counter(c['outcome'] for c in calls)}; {found}"
    )
    assert found.settled
    assert Counter((call["task_id"], call["attempt"]) for call in calls).most_common(1)[0][1] == 1
    # Each result's call; and that of a worker that answered too late to settle it.
    buried = {letter["task_id"] for _, letter in client.xrange("dead")}
    assert {call["task_id"] for call in answered} == set(ids) - buried
    # A kill in the microseconds between the note and the first byte leaves a row without a hit.
    assert len(hits) <= len(calls) <= len(hits) + max(1, killer.kills // 10)
    of_hit = {hit["request_id"]: hit for hit in hits}
    for kind in ("input_tokens", "output_tokens"):
        assert sum(call[kind] for call in answered) == sum(
            of_hit[call["request_id"]][kind] for call in answered
        )


@pytest.mark.parametrize("away_s", [3, pytest.param(10, marks=LONG)])
def test_redis_and_the_database_are_away_at_once(
    simulator: Simulator, tmp_path: Path, away_s: float
) -> None:
    """Under load; afterwards every attempt is there, once."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    simulator.settings("claude", latency=0.5)
    with Server("always") as server, fleet(server.url, roles_over(simulator)) as workers:
        workers.environ |= {"SPOOL_DIR": str(tmp_path / "spool"), "LEDGER_URL": url}
        workers.start(2, "threads", 8)
        ids = enqueue(workers, 150)
        wait_for(lambda: len(simulator.hits("claude")) > 30, 30, workers.logs)

        blocking = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        blocking.execute("BEGIN EXCLUSIVE")
        server.kill()
        time.sleep(away_s)
        server.start()
        wait_until_drained(server.client, workers, 60, "role.coder")
        blocking.close()
        wait_for(lambda: server.client.xlen("ledger") == 0, 60, workers.logs)

        found = account(server.client, simulator, ids)
    calls = calls_in(url)
    assert (found.lost, set(found.statuses), found.again) == ([], {"SUCCESS"}, 0)
    assert len(calls) == len(simulator.hits("claude"))
    assert Counter(call["outcome"] for call in calls) == {"succeeded": 150}
    assert len({call["task_id"] for call in calls}) == 150

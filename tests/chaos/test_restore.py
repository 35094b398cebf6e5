"""Redis is put back to an older snapshot: docs/backup.md says what that means for each task."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from simulator.client import Simulator
from tests.support.chaos import roles_over
from tests.support.fleet import Fleet, fleet, wait_for
from tests.support.pages import blocks_of
from tests.support.valkey import Server

ENQUEUE = """
from breakwater import complete
for task_id in %r:
    complete.apply_async(("coder", f"prompt {task_id}"), task_id=task_id)
"""
SETTLED, WAITING, LATER = ("settled-1", "settled-2"), ("waiting-1", "waiting-2"), ("later-1",)


def answered(server: Server, ids: tuple[str, ...]) -> bool:
    metas = [server.client.get(f"celery-task-meta-{task_id}") for task_id in ids]
    return all(meta and json.loads(meta)["status"] == "SUCCESS" for meta in metas)


def answer(server: Server, workers: Fleet, ids: tuple[str, ...]) -> None:
    """Enqueue these, and let a worker answer all that waits; every row reaches the ledger."""
    workers.run(ENQUEUE % (ids,))
    workers.start()
    wait_for(lambda: answered(server, ids), explain=workers.logs)
    wait_for(lambda: not server.client.exists("role.coder", "taken"), explain=workers.logs)
    wait_for(lambda: not server.client.xlen("ledger"), explain=workers.logs)
    workers.stop()


def rows(workers: Fleet) -> dict[str, int]:
    """Return how many attempts the ledger has of each task."""
    ledger = sqlite3.connect(workers.folder / "ledger.db")
    counted = ledger.execute("SELECT task_id, count(*) FROM attempts GROUP BY task_id")
    return dict(counted.fetchall())


def prompts(simulator: Simulator) -> int:
    return len(simulator.hits("claude"))


@pytest.fixture
def restored(tmp_path: Path, simulator: Simulator) -> Any:
    """A fleet without workers, whose Redis is as it was before the last prompts were answered."""
    with Server() as server, fleet(server.url, roles_over(simulator)) as workers:
        answer(server, workers, SETTLED)
        workers.run(ENQUEUE % (WAITING,))
        server.snapshot(tmp_path / "dump.rdb")
        answer(server, workers, LATER)
        assert prompts(simulator) == len(SETTLED + WAITING + LATER)

        server.restore(tmp_path / "dump.rdb")
        yield server, workers


def test_what_was_answered_since_the_snapshot_is_called_again(
    restored: tuple[Server, Fleet], simulator: Simulator
) -> None:
    """What was settled before it is not; what was enqueued after it is gone, until enqueued again."""
    server, workers = restored
    before = prompts(simulator)

    assert not server.client.exists("celery-task-meta-later-1")
    answer(server, workers, LATER)

    assert answered(server, SETTLED + WAITING + LATER)
    assert prompts(simulator) == before + len(WAITING + LATER)
    assert rows(workers) == {
        **dict.fromkeys(SETTLED, 1), **dict.fromkeys(WAITING, 2), **dict.fromkeys(LATER, 2),
    }  # fmt: skip


def test_the_ledger_can_keep_them_from_being_paid_for_again(
    restored: tuple[Server, Fleet], simulator: Simulator
) -> None:
    """The page's own commands cancel, before any worker starts, what the ledger has as answered."""
    server, workers = restored
    before = prompts(simulator)
    (recipe,) = [block for block in blocks_of("docs/backup.md") if block.language == "python"]
    export = "breakwater ledger export --outcome succeeded --since 2h --format json"
    assert export in "".join(block.text for block in blocks_of("docs/backup.md"))

    done = workers.command(*export.split())
    path = workers.folder / "answered.jsonl"
    path.write_text(done.stdout)
    workers.run(recipe.text.replace("answered.jsonl", str(path)))
    answer(server, workers, ("new",))

    assert prompts(simulator) == before + 1
    assert answered(server, SETTLED)
    states = [
        json.loads(server.client.get(f"celery-task-meta-{each}"))["status"] for each in WAITING
    ]
    assert states == ["REVOKED", "REVOKED"]

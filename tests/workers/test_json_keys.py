"""What `--json` prints has the same keys in every version: scripts read them."""

import json
from typing import Any

import pytest

from simulator.client import Simulator
from tests.support.fleet import fleet
from tests.support.mixed import restore, roles_over

WORKER = {
    "name": "w0@test", "pool": "thread", "concurrency": 1, "version": "x", "queues": ["role.coder"],
    "running": {}, "grace_s": 1.0, "files": 1024, "unpatched": True, "altered": {"x": 1},
}  # fmt: skip
"""As a worker describes itself in Redis."""
KEYS = {
    "workers": {
        "id", "name", "pool", "concurrency", "running", "queues", "version", "draining", "grace_s",
        "files", "unpatched", "altered",
    },
    "queues": {
        "name", "role", "depth", "oldest_s", "running", "delayed", "consumers", "paused", "parked",
    },
    "breakers": {
        "name", "state", "failures", "successes", "generation", "open_for_s", "held_for_s",
        "since_ms", "trips", "reason", "who", "stale", "forced", "probes", "seq", "source",
    },
    "breakers events down": {
        "at_ms", "failures", "from", "generation", "id", "open_until_ms", "reason", "successes",
        "to", "trips", "who",
    },
    "operations": {"id", "at_ms", "who", "what", "targets", "number", "details"},
    "doctor --offline": {"level", "about", "what", "next_step"},
}  # fmt: skip
"""The keys of each row by its command."""


@pytest.mark.parametrize("command", KEYS)
def test_rows_keep_their_keys(redis_url: str, simulator: Simulator, command: str) -> None:
    """Over what an older version left in Redis."""
    client: Any = restore("waiting", redis_url)
    client.hset("workers", "w", json.dumps(WORKER))
    with fleet(redis_url, roles_over(simulator)) as workers:
        rows = json.loads(workers.command("breakwater", *command.split(), "--json").stdout)

    assert rows
    assert {frozenset(row) for row in rows} == {frozenset(KEYS[command])}


def test_a_letter_keeps_its_keys(redis_url: str, simulator: Simulator) -> None:
    """In the list, and alone."""
    restore("settled", redis_url)
    with fleet(redis_url, roles_over(simulator)) as workers:
        letters = json.loads(workers.command("breakwater", "dead", "--json").stdout)
        shown = json.loads(workers.command("breakwater", "dead", "show", "late", "--json").stdout)

    assert {frozenset(letter) for letter in [*letters, shown]} == {
        frozenset(
            ("id", "task_id", "at", "at_ms", "role", "queue", "error", "message", "attempts",
             "options")
        )
    }  # fmt: skip

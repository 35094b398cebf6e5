"""How `breakwater top` is drawn: rates from the first second on, and rows that stand still."""

import io
import random
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from breaker import Breakers
from breakwater.attempt import Attempt
from tasks.ledger.database import Database
from tasks.operations.fleet import FleetSnapshot, Queue
from tasks.operations.snapshot import WINDOW_S, Dashboard, DashboardSnapshot, Rates
from workers.commands.top_view import draw
from workers.terminal.console import Terminal

TASK = {"role": "coder", "queued_ms": 1, "worker": "w", "roles_version": "v", "metadata": {}}
USAGE = {
    "input_tokens": 600,
    "output_tokens": 0,
    "cached_input_tokens": 0,
    "cache_write_tokens": 0,
    "reasoning_tokens": 0,
}


def shown(scene: DashboardSnapshot, width: int = 120, height: int = 40) -> str:
    console = Terminal(
        file=io.StringIO(), width=width, height=height, force_terminal=True, no_color=True
    )
    console.print(draw(scene, width, height))
    return console.file.getvalue()  # type: ignore[attr-defined]


def queue(role: str, depth: int, **more: object) -> Queue:
    return replace(Queue(f"role.{role}", role, depth, None, 0, 0, 1, None, None), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ages_s", "per_minute"),
    [([10] * 20, 120), ([1] * 20, 1200), ([60, 30], 2), ([600, 10], 0.2), ([0] * 5, 300)],
)
def test_rates_are_of_the_time_that_the_ledger_has(
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ages_s: list[int],
    per_minute: float,
) -> None:
    """Twenty calls in ten seconds are 120 a minute, not four; an old ledger has its five minutes."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.setenv("LEDGER_URL", url)
    client = redis.Redis.from_url(redis_url)
    seconds, microseconds = client.time()
    now_ms = seconds * 1000 + microseconds // 1000
    rows = [
        Attempt(
            "claude", "m", "succeeded", number=1, started_ms=now_ms - age * 1000, latency_ms=5
        ).row({**TASK, "task_id": f"t{n}"})
        for n, age in enumerate(ages_s)
    ]
    with Database(url) as database:
        database.add(rows)

    rates = Dashboard(client, Breakers.from_url(redis_url))._read_ledger(now_ms)

    assert rates.providers["claude"].calls * 60 / rates.span_s == pytest.approx(per_minute)
    assert 1 <= rates.span_s <= WINDOW_S


def test_rows_stand_still_while_their_numbers_change() -> None:
    """By name, whatever waits; and whoever gets into trouble stays where it is."""
    roles = [f"role{n:02}" for n in range(8)]
    seen = set()

    for turn in range(5):
        queues = [queue(role, random.Random(turn).randrange(1000)) for role in roles]
        random.Random(turn).shuffle(queues)
        text = shown(DashboardSnapshot(FleetSnapshot(0, queues, []), [], Rates(), []))
        seen.add(tuple(word for word in text.split() if word.startswith("role") and word in roles))

    assert seen == {tuple(roles)}


def test_a_row_in_trouble_is_shown_though_there_is_no_room_for_all() -> None:
    """And the chosen ones are in the order of their names all the same."""
    from breakwater.messaging.whereabouts import OperatorHold

    queues = [queue(f"role{n:02}", n) for n in range(60)]
    queues[50] = replace(queues[50], paused=OperatorHold("ann", 0))

    text = shown(DashboardSnapshot(FleetSnapshot(0, queues, []), [], Rates(), []), 80, 24)

    rows = [word for word in text.split() if word.startswith("role") and word[4:].isdigit()]
    assert "role50" in rows
    assert rows == sorted(rows)

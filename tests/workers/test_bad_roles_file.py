"""A roles file that is spoilt while a chain, a chord and a workflow run: every stage is answered."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.fleet import Fleet, wait_for
from tests.support.loopback import Loopback
from workers.reload import CHECK_INTERVAL_S

pytestmark = pytest.mark.slow

BEGIN = """
from celery import chord
from tasks import complete, workflow
from tasks.workflows import Stage
print((complete.s("slow", "a") | complete.s("planner")).apply_async().id)
print(chord([complete.s("slow", "b"), complete.s("slow", "c")])(complete.s("planner")).id)
stages = [Stage("first", "slow", "{input}"), Stage("second", "planner", "{first}")]
print(workflow(stages).delay("d").id)
"""
END = """
import sys
from tasks import app, workflow
for id_ in sys.argv[1:3]:
    print(app.AsyncResult(id_).get(timeout=60)["role"])
print(workflow.run(sys.argv[3]).get(timeout=60)["role"])
"""


def without_planner(path: Path) -> None:
    kept = [line for line in path.read_text().splitlines() if "planner:" not in line]
    path.write_text("\n".join(kept) + "\n")


SPOILT: dict[str, Callable[[Path], object]] = {
    "half written": lambda path: path.write_text(path.read_text()[:300]),
    "missing": Path.unlink,
    "without a later stage's role": without_planner,
}


@pytest.mark.parametrize("way", SPOILT)
def test_later_stages_are_answered(
    workers: Fleet, held: Loopback, redis_url: str, way: str
) -> None:
    """The worker goes on with the last good file for what it enqueues, as for what it runs."""
    client = redis.Redis.from_url(redis_url)
    good = workers.roles_file.read_text()
    workers.start(1)
    ids = workers.run(BEGIN).split()
    wait_for(lambda: client.hlen("begun") == 4, 60)

    SPOILT[way](workers.roles_file)
    time.sleep(3 * CHECK_INTERVAL_S)  # it was looked at, more than once
    held.gate.set()
    wait_for(lambda: client.llen("role.slow") == 0 and client.hlen("begun") == 0, 60)
    workers.roles_file.write_text(good)
    found = workers.run(
        END.replace("sys.argv[1:3]", repr(ids[:2])).replace("sys.argv[3]", repr(ids[2]))
    )

    assert found.split() == ["planner"] * 3
    assert client.xlen("dead") == 0

"""Another Celery program on the same database, with the same default queue."""

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.support.fleet import Fleet, wait_for

pytestmark = pytest.mark.slow

SHOP = """
import os
from celery import Celery
shop = Celery("shop", broker=os.environ["SHOP_URL"], backend=os.environ["SHOP_URL"])
shop.conf.update(accept_content=["json", "pickle"], result_accept_content=["json", "pickle"])

@shop.task(name="shop.add")
def add(a, b):
    return a + b
"""
SEND = """
from shop import add
print(add.apply_async((1, 2)).id, add.apply_async((3, 4), serializer="pickle").id)
"""
ASK = """
from tasks import app
print(app.send_task("complete", ("planner", "hi")).get(timeout=60)["role"])
"""


def test_its_tasks_stay_for_its_own_worker(workers: Fleet, redis_url: str, tmp_path: Path) -> None:
    """Ours neither fails nor keeps them, answers what is ours, and says so once."""
    client = redis.Redis.from_url(redis_url)
    (tmp_path / "shop.py").write_text(SHOP)
    environ = {**workers.environ, "SHOP_URL": redis_url.partition("?")[0], "C_FORCE_ROOT": "1"}
    workers.start(1)
    send = [sys.executable, "-c", SEND]
    sent = subprocess.run(
        send, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert sent.returncode == 0, sent.stderr
    ids = sent.stdout.split()
    wait_for(lambda: "task.not_ours" in workers.log(), 60)

    answered = workers.run(ASK, roles_known=False)
    doctor = workers.command("breakwater", "doctor").stdout

    assert answered.strip() == "planner"
    assert client.xlen("dead") == 0
    assert not any(client.exists(f"celery-task-meta-{each}") for each in ids)
    assert client.llen("celery") == 2
    assert workers.log().count("task.not_ours") == 1
    assert "task shop.add: queue celery has messages of it" in doctor
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "shop", "worker", "--pool", "solo", "-l", "ERROR"],
        cwd=tmp_path, env=environ,
    )  # fmt: skip
    try:
        wait_for(lambda: all(client.exists(f"celery-task-meta-{each}") for each in ids), 90)
    finally:
        process.terminate()
        process.wait(60)


def test_the_common_queue_can_have_another_name(workers: Fleet, redis_url: str) -> None:
    """Then a stock worker of another program does not even see our prompts."""
    client = redis.Redis.from_url(redis_url)
    workers.environ["BREAKWATER_QUEUE"] = "breakwater"
    client.lpush("celery", b"of somebody else")
    workers.start(1)

    answered = workers.run(ASK, roles_known=False)

    assert answered.strip() == "planner"
    assert client.lrange("celery", 0, -1) == [b"of somebody else"]
    workers.environ["BREAKWATER_QUEUE"] = "role.x"
    done = workers.command("celery", "-A", "workers", "worker", "--pool", "threads")
    assert done.returncode != 0
    assert "BREAKWATER_QUEUE must be" in done.stdout + done.stderr

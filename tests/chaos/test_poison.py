"""A prompt kills the worker that runs it: it is found, and what ran beside it is answered."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from simulator.client import Simulator
from tasks.delivery.delivery_store import MAX_LOST
from tests.support.fleet import Fleet, wait_for
from tests.support.spawner import Child

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KILLER = '''
"""A provider that some prompts make kill its process, as a library that segfaults would."""
import os, signal
from tasks.providers.openai_chat import OpenAIChatProvider

class Killer(OpenAIChatProvider):
    def complete(self, request):
        if any("poison" in str(each.content) for each in request.messages):
            request.before_sending()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().complete(request)
'''
ENQUEUE = """
from tasks import complete
for name in {names!r}:
    complete.apply_async((name.partition("/")[0], "<" + name + ">"), task_id=name)
"""


@pytest.fixture
def deadly(workers: Fleet) -> Fleet:
    """Workers whose provider can be made to kill them."""
    (workers.folder / "killer.py").write_text(KILLER)
    workers.environ["PYTHONPATH"] = str(workers.folder)
    text = workers.roles_file.read_text()
    workers.roles_file.write_text(text.replace("adapter: openai-chat", "adapter: 'killer:Killer'"))
    return workers


@contextmanager
def supervised(workers: Fleet, number: int, pool: str, threads: int) -> Iterator[None]:
    """Start workers, and another one for each that dies, as systemd or Kubernetes would."""
    ends = threading.Event()

    def watch() -> None:
        alive: list[Child] = []
        while not ends.wait(0.2):
            alive = [each for each in alive if each.poll() is None]
            while len(alive) < number and not ends.is_set():
                alive.append(workers.workers[workers.start_one(pool, threads)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ends.set()
        watcher.join()


@pytest.mark.parametrize(
    ("pool", "number", "threads"),
    [("threads", 1, 21), ("threads", 2, 21), ("gevent", 1, 21), ("prefork", 1, 3)],
)
def test_only_the_poison_fails(
    deadly: Fleet, simulator: Simulator, client: Any, pool: str, number: int, threads: int
) -> None:
    """Also with one worker alone; nothing beside it is a dead letter, or paid for more than thrice."""
    for label in ("claude", "gpt"):
        simulator.settings(label, latency=3, answer="echo")
    innocent = [f"{role}/{n}" for role in ("coder", "other") for n in range(10)]
    poison = ["coder/poison"] if number == 1 else ["coder/poison", "other/poison"]
    deadly.run(ENQUEUE.format(names=[*innocent[:10], *poison, *innocent[10:]]))

    with supervised(deadly, number, pool, threads):
        wait_for(
            lambda: all(client.exists(f"celery-task-meta-{name}") for name in innocent + poison),
            600,
            lambda: deadly.logs()[-8000:],
        )
        wait_for(lambda: not client.exists("taken", "apart"), 60)

    metas = {n: json.loads(client.get(f"celery-task-meta-{n}")) for n in innocent + poison}
    assert {n for n in metas if metas[n]["status"] != "SUCCESS"} == {*poison}
    assert all(metas[n]["result"]["exc_type"] == "WorkerLost" for n in poison)
    letters = {fields["task_id"] for _, fields in client.xrange("dead")}
    assert letters == {*poison}
    calls: Counter[str] = Counter()
    for name in innocent:
        attempts = metas[name]["result"]["attempts"]
        calls[name] = sum(each["outcome"] != "rejected" for each in attempts)
    assert max(calls.values()) <= 3
    hits = len(simulator.hits("claude")) + len(simulator.hits("gpt"))
    assert hits <= 3 * len(innocent)
    assert len(deadly.workers) <= number + len(poison) * (MAX_LOST + 1) or pool == "prefork"

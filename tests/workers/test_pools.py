"""What a pool cannot do is refused; what a host cannot do is no prompt's fault."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.concurrency import get_implementation
from celery.worker.control import Panel

from simulator.client import Simulator
from tasks import app
from tests.support.fleet import Fleet, wait_for
from workers.pools import pool_faults

ENQUEUE = (
    "from tasks import complete\nfor n in range(%d): print(complete.delay('clarifier', str(n)).id)"
)
OPTIONS = {
    "autoscale": "6,2",
    "time_limit": 5.0,
    "soft_time_limit": 5.0,
    "max_tasks_per_child": 10,
    "max_memory_per_child": 100_000,
}
REFUSED = {
    "prefork": [],
    "gevent": ["soft_time_limit", "max_tasks_per_child", "max_memory_per_child"],
    "threads": list(OPTIONS)[1:],
    "solo": list(OPTIONS),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("pool", REFUSED)
def test_an_option_that_a_pool_cannot_honour_is_refused(pool: str, option: str) -> None:
    """The sentence names the option, the pools that can, and what to do instead."""
    faults = pool_faults({"pool": get_implementation(pool), option: OPTIONS[option]})

    assert len(faults) == (option in REFUSED[pool])
    if faults:
        assert f"--{option.replace('_', '-')}: --pool {pool} cannot do that (" in faults[0]
        assert "prefork" in faults[0].partition(";")[0]


@pytest.mark.parametrize(
    "setting",
    ["task_time_limit", "task_soft_time_limit", "worker_max_tasks_per_child",
     "worker_max_memory_per_child"],
)  # fmt: skip
def test_a_setting_is_refused_as_its_option_is(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's code may have set it."""
    monkeypatch.setitem(app.conf, setting, 5)

    assert len(pool_faults({"pool": "threads"})) == 1
    assert pool_faults({"pool": "prefork"}) == []


@pytest.mark.parametrize(
    ("options", "number"),
    [({"pool": "solo", "concurrency": 8}, 1), ({"pool": "solo", "concurrency": 1}, 0),
     ({"pool": "solo"}, 0), ({}, 0), ({"pool": "threads", "concurrency": 8}, 0),
     ({"pool": "threads", "soft_time_limit": 2, "time_limit": 3}, 2),
     ({"pool": "processes", "autoscale": "2,1"}, 0), ({"pool": "mine:Pool", "autoscale": "2,1"}, 0)],
)  # fmt: skip
def test_all_faults_are_named_at_once(options: dict[str, Any], number: int) -> None:
    """Solo runs one task; a pool of somebody else's is left alone."""
    assert len(pool_faults(options)) == number


class Pool:
    """A pool of this name that counts."""

    def __init__(self, module: str) -> None:
        self.size = 4
        self.__class__ = type("TaskPool", (Pool,), {"__module__": f"celery.concurrency.{module}"})

    @property
    def num_processes(self) -> int:
        return self.size

    def grow(self, n: int) -> None:
        self.size += n

    def shrink(self, n: int) -> None:
        if n == 2:
            raise ValueError("all busy")
        self.size -= n


@pytest.mark.parametrize(
    ("command", "pool", "args", "size"),
    [("pool_grow", "thread", {"n": 1}, 4), ("pool_shrink", "thread", {"n": 1}, 4),
     ("pool_grow", "solo", {}, 4), ("pool_shrink", "solo", {}, 4),
     ("pool_grow", "prefork", {"n": 2}, 6), ("pool_shrink", "prefork", {"n": 3}, 1),
     ("pool_shrink", "prefork", {"n": 2}, 4), ("pool_shrink", "gevent", {"n": 4}, 4),
     ("pool_grow", "gevent", {"n": -1}, 4), ("pool_shrink", "gevent", {"n": -1}, 4),
     ("pool_grow", "gevent", {"n": 10**9}, 4), ("pool_grow", "prefork", {"n": "2"}, 4),
     ("pool_grow", "prefork", {"n": True}, 4), ("pool_grow", "prefork", {"n": 2.5}, 4),
     ("autoscale", "thread", {"max": 9, "min": 1}, 4), ("autoscale", "prefork", {}, 4)],
)  # fmt: skip
def test_a_command_that_a_pool_cannot_obey_is_answered_by_an_error(
    command: str, pool: str, args: dict[str, Any], size: int
) -> None:
    """And changes nothing, neither of the pool nor of how much is taken for it."""
    taken: list[int] = []
    consumer = SimpleNamespace(
        pool=Pool(pool),
        controller=SimpleNamespace(autoscaler=None),
        _update_prefetch_count=taken.append,
    )

    reply = Panel.data[command](SimpleNamespace(consumer=consumer), **args)

    assert consumer.pool.size == size
    assert sum(taken) == size - 4
    assert list(reply) == (["ok"] if size != 4 else ["error"])


@pytest.mark.parametrize("bounds", [(0, 0), (3, 5), (-1, None), ("9", 1), (10**9, 1)])
def test_bounds_that_make_no_sense_are_refused(bounds: tuple[Any, Any]) -> None:
    """A pool of nothing would hold its messages for ever."""
    scaler = SimpleNamespace(max_concurrency=4, min_concurrency=2, update=lambda *_: (0, 0))
    consumer = SimpleNamespace(pool=Pool("prefork"), controller=SimpleNamespace(autoscaler=scaler))

    reply = Panel.data["autoscale"](SimpleNamespace(consumer=consumer), *bounds)

    assert "1 <= min <= max" in reply["error"]


@pytest.mark.slow
def test_a_worker_says_at_its_start_what_its_pool_cannot_do(workers: Fleet) -> None:
    """And ends with the exit code for wrong usage."""
    workers.start_one("threads", 4, "--soft-time-limit", "6", "--time-limit", "5")

    assert workers.workers[0].wait(180) == 64
    assert "--time-limit: --pool threads cannot do that (gevent and prefork can)" in workers.log()
    assert "--soft-time-limit: --pool threads cannot do that" in workers.log()
    assert "Traceback" not in workers.log()


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["gevent", "prefork", "threads"])
def test_a_pool_that_scales_answers_all(
    workers: Fleet, simulator: Simulator, redis_url: str, pool: str
) -> None:
    """More than its smallest number at once, and none is a dead letter."""
    simulator.settings("claude", latency="held")
    workers.start(1, pool, 1, "--autoscale", "4,1")

    ids = workers.run(ENQUEUE % 12).split()
    wait_for(lambda: simulator.in_flight("claude") > 1, explain=workers.logs)
    simulator.release("claude")

    server: Any = redis.Redis.from_url(redis_url)
    wait_for(lambda: answered(server, ids) == 12, 120, workers.logs)
    assert server.xlen("dead") == 0
    assert len(simulator.hits("claude")) == 12


NO_THREADS = """
import os, threading
start = threading.Thread.start
def refuse(self):
    if self._target.__name__ == "_worker" and os.path.exists({flag!r}):
        raise {error}
    start(self)
threading.Thread.start = refuse
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        'RuntimeError("can\'t start new thread")',
        "MemoryError()",
        "OSError(24, 'Too many open files')",
    ],
)
def test_a_host_that_can_do_no_more_loses_no_prompt(
    workers: Fleet, simulator: Simulator, redis_url: str, tmp_path: Path, error: str
) -> None:
    """Prompts go back in their order; one line says why; when the host can again, all are answered."""
    flag = tmp_path / "no-threads"
    flag.touch()
    (workers.folder / "sitecustomize.py").write_text(NO_THREADS.format(flag=str(flag), error=error))
    workers.environ["PYTHONPATH"] = str(workers.folder)
    server: Any = redis.Redis.from_url(redis_url)
    ids = workers.run(ENQUEUE % 30).split()
    workers.start(1, "threads", 4)

    wait_for(lambda: workers.log().count("worker.cannot_run") >= 2, 60, workers.logs)
    faults = workers.log().count("worker.cannot_run")
    wait_for(lambda: server.llen("role.clarifier") == 30, 60, workers.logs)
    waiting = [json.loads(raw)["headers"]["id"] for raw in server.lrange("role.clarifier", 0, -1)]
    flag.unlink()
    wait_for(lambda: answered(server, ids) == 30, 120, workers.logs)

    assert waiting[::-1] == ids
    assert faults < 10
    assert server.xlen("dead") == 0
    assert len(simulator.hits("claude")) == 30


def answered(server: Any, ids: list[str]) -> int:
    metas = [server.get(f"celery-task-meta-{task_id}") for task_id in ids]
    return sum(json.loads(meta)["status"] == "SUCCESS" for meta in metas if meta)

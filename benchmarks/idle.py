"""
What workers that have nothing to do cost: their Redis, and themselves.

A few real ones, as ours are and as Celery's talk with each other; and hundreds that only do what a
real one's threads do, each with connections of its own.
"""

import asyncio
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from benchmarks.delivery import CELERY, cpu_s
from benchmarks.meter import QUEUES, Meter, about
from breakwater.redis.script_arguments import named
from tasks.delivery.delivery_store import LEASE_MS, DeliveryStore
from tasks.delivery.lease_keeper import HEARTBEAT_CYCLES, RENEWAL_INTERVAL_S
from tasks.ledger.drain import FOLLOWER_INTERVAL_S

CROWDS = (100, 300)
"""How many idle workers are imitated; more than this fill the core that imitates them."""
IDLE_S = 10.0
SETTLE_S = 5.0
CHATTY = """
from celery import signals
from workers import app

@signals.worker_init.connect(weak=False)
def talk(sender, **_):
    sender.options.update(without_gossip=False, without_mingle=False, without_heartbeat=False)
"""
"""A worker that talks with all others, as Celery's do."""


def crowds(client: redis.Redis, environ: dict[str, str]) -> dict[str, dict[str, float]]:
    """Imitate idle workers by the hundred; return what the server spends, by their number."""
    return {
        f"imitated_{number}": asyncio.run(_crowd(number, client, environ["REDIS_URL"]))
        for number in CROWDS
    }


async def _crowd(number: int, client: redis.Redis, url: str) -> dict[str, float]:
    store = DeliveryStore(client)
    for name in ("take", "tend", "heartbeat"):
        script = store.script(name)
        script.sha = client.script_load(script.script)
    workers = [asyncio.create_task(_work(str(n), store, url)) for n in range(number)]
    await asyncio.sleep(SETTLE_S)
    spent = _spending(client)
    await asyncio.sleep(IDLE_S)
    spending = spent()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    return spending


async def _work(name: str, store: DeliveryStore, url: str) -> None:
    """Do what an idle worker's consumer, keeper and ledger thread do."""
    mine, say = redis.asyncio.Redis.from_url(url), json.dumps(about(int(name)))
    bells = [f"bell:{queue}" for queue in QUEUES]
    heartbeat = named(
        worker=name, description=say, lease_ms=LEASE_MS, version="", roles="", queues=QUEUES
    )

    async def look(turn: int) -> None:
        await mine.brpop(bells, 1)
        lists, arguments = store.take_command(QUEUES, 8, f"{name}.{turn}")
        await mine.evalsha(store.script("take").sha, len(lists), *lists, arguments)

    await asyncio.gather(
        _every(0, look),
        _every(RENEWAL_INTERVAL_S, lambda _: mine.evalsha(store.script("tend").sha, 0, LEASE_MS)),
        _every(
            RENEWAL_INTERVAL_S * HEARTBEAT_CYCLES,
            lambda _: mine.evalsha(store.script("heartbeat").sha, 0, heartbeat),
        ),
        _every(FOLLOWER_INTERVAL_S, lambda _: mine.get("ledger:drainer")),
    )


async def _every(seconds: float, step: Callable[[int], Any]) -> None:
    """Begin anywhere within the time, so that they do not all come at once."""
    await asyncio.sleep((seconds or 1) * secrets.randbelow(1000) / 1000)
    turn = 0
    while True:
        due = time.monotonic() + seconds
        turn += 1
        await step(turn)
        await asyncio.sleep(max(0, due - time.monotonic()))


def _spending(client: redis.Redis) -> Callable[[], dict[str, float]]:
    """Begin to count; what is returned tells what was spent since, each second."""
    meter, began = Meter(client), time.perf_counter()
    before = meter.read()

    def spent() -> dict[str, float]:
        took_s = time.perf_counter() - began
        us, wire, commands = ((b - a) / took_s for a, b in zip(before, meter.read(), strict=True))
        return {"core": us / 1e6, "commands_s": commands, "bytes_s": wire}

    return spent


def real_ones(client: redis.Redis, environ: dict[str, str]) -> dict[str, dict[str, float]]:
    """Run one idle worker, and several, in both ways."""
    Path(environ["HOME"], "chatty.py").write_text(CHATTY)
    figures = {}
    for app in ("workers", "chatty"):
        for number in (1, 8):
            with _workers(app, number, client, environ) as pids:
                spent, used_s, began = _spending(client), sum(map(cpu_s, pids)), time.perf_counter()
                time.sleep(IDLE_S)
                took_s = (time.perf_counter() - began) * number
                info: Any = client.info("clients")
                figures[f"{app}_{number}"] = {
                    **spent(),
                    "worker_core": (sum(map(cpu_s, pids)) - used_s) / took_s,
                    "connections": (info["connected_clients"] - 1) / number,
                }
    return figures


@contextmanager
def _workers(
    app: str, number: int, client: redis.Redis, environ: dict[str, str]
) -> Iterator[list[int]]:
    client.flushall()
    command = [CELERY, "-A", app, "worker", "--pool", "threads", "--concurrency", "100"]
    started = [
        subprocess.Popen(
            [*command, "--loglevel", "ERROR", "--hostname", f"w{n}@host"],
            cwd=environ["HOME"], env=environ, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for n in range(number)
    ]  # fmt: skip
    try:
        while client.hlen("workers") < number:
            time.sleep(0.1)
        time.sleep(SETTLE_S)
        yield [worker.pid for worker in started]
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.wait()

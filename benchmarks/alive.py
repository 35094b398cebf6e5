"""
What a completion costs Redis when real workers make it, as fast as they can.

Providers answer at once, in the worker's process. Beside the steps done one by one this has all
that comes with a life: bells, leases, batches that are half full, and a server that does something
else in between.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.delivery import CELERY, ENQUEUE, INSTANT, ROLES
from benchmarks.meter import Meter

CROWDS = (1, 3)
WARM, MEASURED, LEFT = 300, 2_000, 200
THREADS = 50


def alive(client: redis.Redis, environ: dict[str, str]) -> dict[str, dict[str, float]]:
    """Return µs of the server's main thread for a completion, from the take on, and their rate."""
    folder = Path(environ["HOME"])
    (folder / "instant.py").write_text(INSTANT)
    (folder / "roles.yaml").write_text(ROLES)
    return {f"alive_{number}": _measure(number, client, environ) for number in CROWDS}


def _measure(number: int, client: redis.Redis, environ: dict[str, str]) -> dict[str, float]:
    client.flushall()
    enqueue = ENQUEUE["breakwater"] % (WARM + MEASURED + LEFT)
    subprocess.run([sys.executable, "-c", enqueue], cwd=environ["HOME"], env=environ, check=True)
    with _workers(number, environ):
        first = _wait(client, WARM)
        before, began = Meter(client).read(), time.perf_counter()
        last = _wait(client, first + MEASURED)
        took_s, after = time.perf_counter() - began, Meter(client).read()
    return {"us": (after[0] - before[0]) / (last - first), "rate": (last - first) / took_s}


@contextmanager
def _workers(number: int, environ: dict[str, str]) -> Iterator[None]:
    command = [CELERY, "-A", "workers", "worker", "--pool", "threads", "--loglevel", "ERROR"]
    command += ["--concurrency", str(THREADS), "--hostname"]
    with open(os.devnull, "w") as nothing:
        started = [
            subprocess.Popen(
                [*command, f"w{n}@host"], cwd=environ["HOME"], env=environ, stdout=nothing,
                stderr=nothing, start_new_session=True,
            )
            for n in range(number)
        ]  # fmt: skip
    try:
        yield
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.wait()


def _wait(client: redis.Redis, number: int) -> int:
    """Wait until so many results are there, and say how many; looking seldom, it is measured."""
    while (done := done_so_far(client)) < number:
        time.sleep(0.2)
    return done


def done_so_far(client: redis.Redis) -> int:
    """Count results: what expires is a result, or a task that has begun."""
    with client.pipeline() as pipe:
        pipe.info("keyspace")
        pipe.hlen("begun")
        keyspace, begun = pipe.execute()
    return int(keyspace.get("db0", {}).get("expires", 0)) - int(begun)

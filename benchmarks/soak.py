"""
Whether anything grows: 200,000 completions through one worker (`--short`: 20,000).

An instant provider in the worker's process; a producer keeps a few thousand prompts waiting. Every
tenth of the way the worker's memory, threads and connections are looked at; in the end, what is
left in Redis, which has to be what docs/redis.md names. `python -m benchmarks.soak [--short]`.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.delivery import cpu_s
from benchmarks.stage import Stage, stage, wait

COMPLETIONS, SHORT = 200_000, 20_000
CONCURRENCY = 10
"""So few that each thread has all its connections by the first look; a pool never shrinks."""
WAVE = 2_000
"""Prompts that are enqueued in one go, whenever fewer than that wait."""
SETTLES_S, WAVE_S = 5.0, 120.0
PAGE = Path(__file__).parent.parent / "docs" / "redis.md"
HEADING = "## What stays"
MOST_ENTRIES = 50
"""Of a kind that lasts, with one worker, one queue and one provider."""
FAMILY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PRODUCER = """
import sys
from tasks import complete
for line in sys.stdin:
    complete.delay_many([("coder", "Write a quicksort")] * int(line))
    print(flush=True)
"""

Look = dict[str, float]


def main(short: bool = False) -> dict[str, Any]:
    """
    Print and return what was seen on the way, and what was left.

    Raises:
        AssertionError: A kind of key was left that the page does not name, or one that grows.
    """
    number = SHORT if short else COMPLETIONS
    with stage() as those, those.worker("breakwater", CONCURRENCY) as pid:
        begun, cpu = time.monotonic(), cpu_s(pid)
        looks = _on_the_way(those, pid, number)
        took_s, cpu_ms = time.monotonic() - begun, (cpu_s(pid) - cpu) * 1000 / number
        time.sleep(SETTLES_S)
        left = _left(those.client)
    first, last = looks[0], looks[-1]
    grown = {each: last[each] / first[each] - 1 for each in ("rss_mb", "threads", "files")}
    print(
        f"{number / took_s:.0f} a second, {cpu_ms:.2f} ms of CPU each; from the first look to the"
    )
    print("last: " + ", ".join(f"{each} {by:+.1%}" for each, by in grown.items()))
    _report(left)
    unnamed = [kind for kind in left if not any(each.fullmatch(kind) for each in named())]
    assert not unnamed, f"docs/redis.md does not name {unnamed}"
    lasting = {kind: seen["entries"] for kind, seen in left.items() if seen["lasting"]}
    growing = [kind for kind, entries in lasting.items() if entries > MOST_ENTRIES]
    assert not growing, f"{growing} last, and grow"
    return {"looks": looks, "grown": grown, "left": left, "cpu_ms": cpu_ms}


def _on_the_way(those: Stage, pid: int, number: int) -> list[Look]:
    heads = ("RSS MB", "threads", "files", "clients", "keys")
    print(f"\n{'soak: completions':>20}" + "".join(f"{head:>9}" for head in heads))
    looks: list[Look] = []
    command = [sys.executable, "-c", PRODUCER]
    with subprocess.Popen(
        command, cwd=those.folder, env=those.environ, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as producer:  # fmt: skip
        assert producer.stdin
        assert producer.stdout
        for queued in range(WAVE, number + 1, WAVE):
            producer.stdin.write(f"{WAVE}\n")
            producer.stdin.flush()
            producer.stdout.readline()
            wait(lambda least=queued - WAVE: those.results() >= least, WAVE_S)
            if queued % (number // 10) == 0:
                wait(lambda least=queued: those.results() >= least, WAVE_S)
                looks.append(_look(those, pid, queued))
        producer.stdin.close()
    return looks


def _look(those: Stage, pid: int, done: int) -> Look:
    status = Path(f"/proc/{pid}/status").read_text()
    rss_mb = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    threads = int(re.search(r"Threads:\s+(\d+)", status)[1])  # type: ignore[index]
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    clients, keys = len(those.client.client_list()), those.client.dbsize()
    print(f"{done:20,}{rss_mb:9.1f}{threads:9}{files:9}{clients:9}{keys:9}", flush=True)
    return {"rss_mb": rss_mb, "threads": threads, "files": files, "clients": clients, "keys": keys}


def _left(client: Any) -> dict[str, dict[str, int]]:
    """Return of each kind how many keys there are, how many never expire, and what these hold."""
    left: dict[str, dict[str, int]] = {}
    size_of = {
        "list": client.llen, "hash": client.hlen, "set": client.scard, "zset": client.zcard,
        "stream": client.xlen, "string": client.strlen,
    }  # fmt: skip
    for key in client.scan_iter(count=1000):
        kind = left.setdefault(FAMILY.sub("ID", key), {"keys": 0, "lasting": 0, "entries": 0})
        kind["keys"] += 1
        if client.ttl(key) < 0:
            kind["lasting"] += 1
            kind["entries"] += size_of[client.type(key)](key)
    return left


def named() -> list[re.Pattern[str]]:
    """Return the kinds of keys that the page names."""
    section = PAGE.read_text().partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    names = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)))
    shapes = (re.escape(name).replace("…", ".*") for name in names)
    return [re.compile(re.sub("NAME|QUEUE|DIGEST", ".+", shape)) for shape in shapes]


def _report(left: dict[str, dict[str, int]]) -> None:
    print(f"\n{'left in Redis':40}{'keys':>9}{'lasting':>9}{'entries':>9}   of those that last")
    for kind, seen in sorted(left.items()):
        print(f"{kind:40}{seen['keys']:9}{seen['lasting']:9}{seen['entries']:9}")


if __name__ == "__main__":
    main("--short" in sys.argv)

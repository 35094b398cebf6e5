"""
What Redis has to do for a completion, by purpose, beside bare Celery: commands, and bytes.

One worker with threads and an instant provider in its process; a producer enqueues one by one, as
fast as it can (busy) or 20 a second (quiet). Everything is counted, from the first enqueued to a
second after the last result, so what a worker does every second is in it. MONITOR shows commands
and their arguments; the bytes on the wire are the server's own count, in runs without MONITOR.
Commands inside a script are counted apart: they cost no round trip.
`python -m benchmarks.commands [--short]`.
"""

import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from typing import Any

from benchmarks.delivery import APP
from benchmarks.stage import Stage, stage, wait

ROOT = Path(__file__).parent.parent
WARM = 100
EVERY_S = {"busy": 0.0, "quiet": 0.05}
SETTLES_S = 1.5
"""After the last result: what is acknowledged and drained in batches."""
RARE = 0.005
"""Commands that are rarer than this for each completion are summed up as others."""
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|@\S+|\d+")

INSIDE = "called inside scripts"

Counted = dict[str, tuple[float, float]]
"""What for → commands and bytes that they carry, a completion."""


def main(short: bool = False) -> dict[str, Any]:
    """Print and return commands and bytes a completion."""
    number = {"busy": 500, "quiet": 60} if short else {"busy": 5_000, "quiet": 300}
    figures: dict[str, Any] = {}
    with stage() as those:
        for pace, every_s in EVERY_S.items():
            for name in APP:
                counted = _commands(those, name, number[pace], every_s)
                wired = _wired(those, name, number[pace], every_s)
                figures[f"{name}, {pace}"] = _report(f"{name}, {pace}", counted, wired)
    for pace in EVERY_S:
        ours, bare = (figures[f"{name}, {pace}"]["commands"] for name in APP)
        print(f"{pace}: {ours:.1f} commands, {ours - bare:+.1f} beside bare Celery")
    return figures


def _commands(those: Stage, name: str, number: int, every_s: float) -> Counted:
    """Count the commands that are sent to the server."""
    names = _scripts()
    commands: Counter[str] = Counter()
    carried: Counter[str] = Counter()
    with _warm(those, name), _monitored(those.client) as sent:
        _run(those, name, number, every_s)
    for client_type, command in sent:
        inside = client_type == "lua"
        purpose = INSIDE if inside else _purpose(command, names)
        commands[purpose] += 1
        carried[purpose] += 0 if inside else len(command)
    return {each: (count / number, carried[each] / number) for each, count in commands.items()}


def _wired(those: Stage, name: str, number: int, every_s: float) -> tuple[float, float]:
    """Return the bytes a completion that the server has read and written."""
    with _warm(those, name):
        before = those.client.info("stats")
        _run(those, name, number, every_s)
        after = those.client.info("stats")
    read, written = "total_net_input_bytes", "total_net_output_bytes"
    return (after[read] - before[read]) / number, (after[written] - before[written]) / number


@contextmanager
def _warm(those: Stage, name: str) -> Iterator[None]:
    those.client.flushall()
    with those.worker(name):
        _run(those, name, WARM, 0)
        yield


def _run(those: Stage, name: str, number: int, every_s: float) -> None:
    before = those.results()
    those.produce(name, number, every_s)
    wait(lambda: those.results() >= before + number, 120)
    time.sleep(SETTLES_S)


@contextmanager
def _monitored(client: Any) -> Iterator[list[tuple[str, str]]]:
    """Collect the commands of all clients but of this one."""
    sent: list[tuple[str, str]] = []
    with client.monitor() as monitor:

        def listen() -> None:
            for entry in monitor.listen():
                if entry["command"] == "ECHO over":
                    return
                if not entry["command"].startswith("INFO"):
                    sent.append((entry["client_type"], entry["command"]))

        listener = threading.Thread(target=listen)
        listener.start()
        yield sent
        client.echo("over")
        listener.join()


def _purpose(command: str, names: dict[str, str]) -> str:
    word, _, rest = command.partition(" ")
    first, _, rest = rest.partition(" ")
    if word == "EVALSHA":
        return f"script {names.get(first, first[:8])}"
    if word in {"EVAL", "MULTI", "EXEC", "PING"}:
        return word
    return f"{word} {ID.sub('…', first)[:40]}"


def _scripts() -> dict[str, str]:
    """Return the names of our scripts by their SHA-1; some have a common head."""
    names = {}
    for path in [*ROOT.glob("breaker/**/*.lua"), *ROOT.glob("tasks/**/*.lua")]:
        text = path.read_text()
        for head in ["", *(other.read_text() for other in path.parent.glob("*.lua"))]:
            owner = path.relative_to(ROOT).parts[-3 if path.parent.name == "scripts" else -2]
            names[sha1((head + text).encode()).hexdigest()] = f"{path.stem} ({owner})"
    return names


def _report(title: str, counted: Counted, wired: tuple[float, float]) -> dict[str, Any]:
    print(f"\n{title:44}{'commands':>9}{'bytes':>8}   a completion")
    inside, _ = counted.pop(INSIDE, (0.0, 0.0))
    rare = [0.0, 0.0]
    for purpose, (commands, carried) in sorted(counted.items(), key=lambda each: -each[1][0]):
        if commands < RARE:
            rare = [rare[0] + commands, rare[1] + carried]
        else:
            print(f"{purpose:44}{commands:9.2f}{carried:8.0f}")
    commands, carried = (sum(column) for column in zip(*counted.values(), strict=True))
    print(f"{'others':44}{rare[0]:9.2f}{rare[1]:8.0f}")
    print(f"{'all':44}{commands:9.2f}{carried:8.0f}   wire: {wired[0]:.0f} in, {wired[1]:.0f} out")
    print(f"{INSIDE:44}{inside:9.2f}")
    purposes = {each: counts[0] for each, counts in counted.items() if counts[0] >= RARE}
    totals = {"commands": commands, "in": wired[0], "out": wired[1], "inside": inside}
    return {**totals, "by purpose": purposes}


if __name__ == "__main__":
    main("--short" in sys.argv)

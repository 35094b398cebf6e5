"""
What an outage costs a fleet: calls to the dead provider, time per prompt, lost prompts.

Eight worker processes with 25 calls at once take prompts that arrive one after the other. Each has
a first provider that is dead in one of four ways and a second one that is well; the time of a
prompt is from its enqueueing until its result is stored. All is compared with the same fleet asking
the second provider alone.

`python -m benchmarks.outage`; `--rivals` and `--ways` choose.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks import processes, results
from benchmarks.rivals import loopback
from benchmarks.rivals.catalogue import BY_NAME, RIVALS, Rival
from benchmarks.rivals.environments import programs
from benchmarks.rivals.stage import STARTING_S, Stage
from simulator.client import Simulator

CALLS, RATE = 25, 30.0
"""At once in a process, and prompts a second."""
ANSWER_S, TIMEOUT_S = 1.0, 2.0
"""How long the healthy provider takes, and how long a client waits for any."""
RETRY_AFTER_S = 20
LOST_AFTER_S = 150.0
"""From the last prompt's enqueueing; more than two waits of three tries."""
FAIL_MAX = 5
ALONE = "alone"
DEAD: Mapping[str, Callable[[Simulator], None]] = {
    "503": lambda simulator: simulator.fault("503", status=503),
    "refused": lambda simulator: simulator.refuse("refused"),
    "hang": lambda simulator: simulator.fault("hang", "hang"),
    "429": lambda simulator: simulator.fault("429", status=429, retry_after=RETRY_AFTER_S),
}
"""The ways to be dead; each is the label of a provider, and the role whose first one it is."""
CHAINS = {way: [(way, "openai"), ("well", "anthropic")] for way in DEAD}
QUEUES = tuple(rival for rival in RIVALS if rival.producer)


class Size(NamedTuple):
    """Of a fleet, and of an outage."""

    processes: int
    prompts: int


SHORT, FULL = Size(2, 60), Size(8, 200)


def main(
    short: bool = False,
    rivals: tuple[Rival, ...] = QUEUES,
    ways: tuple[str, ...] = tuple(DEAD),
    beside: bool = False,
) -> list[dict[str, Any]]:
    """Have each rival live through each way, print and keep it, beside what is kept or instead."""
    seen: list[dict[str, Any]] = []
    size, ways = (SHORT, ways[:1]) if short else (FULL, ways)
    print(f"{'outage':44}{'way':9}{'calls':>6}{'p50 s':>7}{'p99 s':>7}{'max s':>7}{'lost':>6}")
    for rival in rivals:
        programs(rival)  # while pip can reach its index
    own = loopback.enter()
    for rival in rivals:
        turn = results.now()
        with Stage({**CHAINS, ALONE: [("well", "anthropic")]}, TIMEOUT_S) as stage:
            _start(stage, rival, size.processes)
            for way in (ALONE, *ways):
                figures = _run(stage, rival, way, size, own)
                seen.append({"turn": turn, "rival": rival.name, "way": way, **figures})
                _print(seen[-1], rival)
        if not short:
            results.keep("outage", [run for run in seen if run["turn"] == turn], beside=beside)
            beside = True
    return seen


def _start(stage: Stage, rival: Rival, number: int) -> None:
    """Start the fleet, have it work while all providers are well, and then strike."""
    for label in (*DEAD, "well"):
        stage.simulator.settings(label, latency=ANSWER_S)
    pids = [stage.start(rival, CALLS, each) for each in range(number)]
    if not stage.wait(rival, lambda: _quiet(pids), STARTING_S):
        raise TimeoutError(f"{rival.title} does not get going: {stage.log(rival)}")
    for role in (ALONE, *DEAD):
        stage.wait_for(stage.enqueue(rival, role, number * CALLS), rival, LOST_AFTER_S)
    stage.simulator.reset()
    stage.simulator.settings("well", latency=ANSWER_S)
    for strike in DEAD.values():
        strike(stage.simulator)


def _quiet(pids: list[int]) -> bool:
    """Tell whether all have started, which takes all the CPU there is."""
    before_s = sum(map(processes.cpu_s, pids))
    time.sleep(2.0)
    after_s = sum(map(processes.cpu_s, pids))
    return before_s > 0.5 * len(pids) and after_s - before_s < 0.1 * len(pids)


def _run(stage: Stage, rival: Rival, way: str, size: Size, own: bool) -> dict[str, Any]:
    refused = loopback.refused() if own else None
    enqueued = stage.enqueue(rival, way, size.prompts, RATE)
    done = stage.wait_for(enqueued, rival, LOST_AFTER_S)
    took_s = sorted(end_s - enqueued[each] for each, end_s in done.items() if end_s)
    hits = [] if way == ALONE else stage.simulator.hits(way)
    calls: int | None = len(hits)
    if way == "refused":  # the provider has seen none of them
        calls = None if refused is None else loopback.refused() - refused
    return {
        **size._asdict(),
        "lost": size.prompts - len(took_s),
        "p50_s": statistics.median(took_s),
        "p99_s": statistics.quantiles(took_s, n=100, method="inclusive")[98],
        "max_s": took_s[-1],
        "dead_calls": calls,
        **(trip(hits) if hits else {}),
    }


def trip(hits: list[dict[str, Any]]) -> dict[str, Any]:
    """Tell what came after the failure that says enough: the fifth one, of a 429 the first."""
    enough = 1 if hits[0]["status"] == 429 else FAIL_MAX
    ends = sorted(hit["ended_at_ms"] or float("inf") for hit in hits)
    known_at = ends[min(enough, len(ends)) - 1]
    starts = [hit["started_at_ms"] for hit in hits]
    return {
        "in_flight_at_trip": sum(start <= known_at for start in starts) - min(enough, len(ends)),
        "last_call_ms": max(starts) - known_at,
    }


def _print(run: dict[str, Any], rival: Rival) -> None:
    trip = ""
    if "last_call_ms" in run:
        trip = f"   last call {run['last_call_ms']:.0f} ms after the trip"
    print(
        f"{rival.title:44}{run['way']:9}{run['dead_calls'] or 0:6}{run['p50_s']:7.2f}"
        f"{run['p99_s']:7.2f}{run['max_s']:7.2f}{run['lost']:6}{trip}",
        flush=True,
    )


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--short", action="store_true")
    words.add_argument("--beside", action="store_true", help="keep what was measured before")
    words.add_argument("--rivals", nargs="*", default=list(BY_NAME), choices=BY_NAME)
    words.add_argument("--ways", nargs="*", default=list(DEAD), choices=DEAD)
    options = words.parse_args()
    chosen = tuple(BY_NAME[name] for name in options.rivals if BY_NAME[name].producer)
    main(options.short, chosen, tuple(options.ways), options.beside)

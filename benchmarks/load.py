"""
What a completion costs with many in flight: CPU, memory, and the rate that is held.

One worker process of each rival asks a simulated provider that takes some seconds to answer. When
the first wave is through, what the process uses is read from outside, from /proc, over a window in
which its slots are always full. Rivals take turns, round by round; all is compared with bare Celery
around the SDK in the same round.

`python -m benchmarks.load --short`; `--rivals`, `--adapters`, `--calls`, `--rounds` choose.
"""

import argparse
import itertools
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import processes, results
from benchmarks.rivals.catalogue import BASE, BY_NAME, RIVALS, Rival
from benchmarks.rivals.experiment import MODELS
from benchmarks.rivals.stage import STARTING_S, Stage

ADAPTERS = tuple(MODELS)
ALL = tuple(rival for rival in RIVALS if not rival.only_outage)
TIMEOUT_S = 120.0
SPREAD = 0.5
"""An answer takes the latency give or take this share, so that calls do not end in waves."""
WAVES = 1.5
"""How many calls for each slot are over when the window begins."""
SAMPLES = 5


@dataclass(frozen=True)
class Load:
    """How many calls at once, how long each takes, and for how long they are watched."""

    calls: int
    latency_s: float
    window_s: float

    @property
    def ideal(self) -> float:
        """Return the completions a second if nothing but the provider took time."""
        return self.calls / self.latency_s

    @property
    def prompts(self) -> int:
        """Return how many keep all slots full until the window ends."""
        return round((WAVES + 1) * self.calls + 1.2 * self.ideal * self.window_s)


@dataclass(frozen=True)
class Reading:
    """What a moment shows."""

    at_s: float
    answered: int
    in_flight: int
    worker_s: float
    simulator_s: float
    redis_s: float
    idle_s: float
    resident_mb: float
    proportional_mb: float


def run(stage: Stage, rival: Rival, load: Load) -> dict[str, Any]:
    """Have one worker answer, and tell what it used."""
    stage.clear()
    stage.simulator.reset()
    spread = (load.latency_s * (1 - SPREAD), load.latency_s * (1 + SPREAD))
    for label in ("first", "second"):
        stage.simulator.settings(label, latency="uniform:{}:{}".format(*spread))
    if rival.producer:
        stage.enqueue(rival, "load", load.prompts)
    pid = stage.start(rival, load.calls, role="load", prompts=str(load.prompts))
    if not stage.wait(rival, lambda: _answered(stage) >= WAVES * load.calls, STARTING_S):
        raise TimeoutError(f"{rival.title} does not get going: {stage.log(rival)}")
    readings = [_read(stage, pid)]
    for _ in range(SAMPLES):
        time.sleep(load.window_s / SAMPLES)
        readings.append(_read(stage, pid))
    second = len(stage.simulator.hits("second"))
    stage.clear()
    return {**_figures(readings, load), "fallbacks": second}


def _answered(stage: Stage) -> int:
    return sum(label["hits"] - label["in_flight"] for label in stage.simulator.state().values())


def _read(stage: Stage, pid: int) -> Reading:
    return Reading(
        time.monotonic(),
        _answered(stage),
        stage.simulator.in_flight("first"),
        processes.cpu_s(pid),
        processes.cpu_s(stage.simulator.pid),
        processes.cpu_s(stage.redis_pid),
        processes.idle_s(),
        *processes.memory_mb(pid),
    )


def _figures(readings: list[Reading], load: Load) -> dict[str, Any]:
    first, last = readings[0], readings[-1]
    took_s, answered = last.at_s - first.at_s, last.answered - first.answered
    cores = {
        name: (getattr(last, f"{name}_s") - getattr(first, f"{name}_s")) / took_s
        for name in ("worker", "simulator", "redis", "idle")
    }
    return {
        "cpu_ms": cores["worker"] * took_s * 1000 / answered,
        "completions": answered,
        "rate": answered / took_s,
        "of_ideal": answered / took_s / load.ideal,
        "in_flight": min(reading.in_flight for reading in readings),
        "resident_mb": max(reading.resident_mb for reading in readings),
        "proportional_mb": max(reading.proportional_mb for reading in readings),
        # What is left was used by others, on a machine that was not quiet.
        "cores": {**cores, "others": (os.cpu_count() or 1) - sum(cores.values())},
    }


SHORT = (Load(200, 2.0, 4.0),)
FULL = (Load(200, 2.0, 25.0), Load(1000, 5.0, 10.0))


def main(
    short: bool = False,
    rivals: tuple[Rival, ...] = ALL,
    adapters: tuple[str, ...] = ADAPTERS,
    calls: tuple[int, ...] = (),
    rounds: int = 3,
    beside: bool = False,
) -> list[dict[str, Any]]:
    """Let all take turns, print what each used, and keep it beside what is kept, or instead."""
    loads = [Load(n, 5.0, 10.0) if n > 200 else Load(n, 2.0, 25.0) for n in calls]
    loads = loads or list(SHORT if short else FULL)
    adapters = adapters[:1] if short else adapters
    seen: list[dict[str, Any]] = []
    for number, adapter, load in itertools.product(range(1 if short else rounds), adapters, loads):
        turn = results.now()
        roles = {"load": [("first", adapter), ("second", adapter)]}
        with Stage(roles, TIMEOUT_S) as stage:
            for rival in rivals[number % len(rivals) :] + rivals[: number % len(rivals)]:
                figures = run(stage, rival, load)
                asked = {"turn": turn, "rival": rival.name, "adapter": adapter}
                seen.append({**asked, **asdict(load), **figures})
                _print(seen[-1])
                if not short:
                    results.keep("load", seen[-1:], beside=beside)
                    beside = True
    return seen


def _print(run: dict[str, Any]) -> None:
    cores = " ".join(f"{name} {share:.2f}" for name, share in run["cores"].items())
    print(
        f"{run['rival']:16}{run['adapter']:10}{run['calls']:6} calls{run['cpu_ms']:8.2f} ms CPU"
        f"{run['of_ideal']:7.1%} of ideal{run['in_flight']:6} in flight"
        f"{run['proportional_mb']:6.0f} MB   cores: {cores}   fallbacks {run['fallbacks']}",
        flush=True,
    )


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--short", action="store_true")
    words.add_argument("--beside", action="store_true", help="keep what was measured before")
    words.add_argument(
        "--rivals", nargs="*", default=[rival.name for rival in ALL], choices=BY_NAME
    )
    words.add_argument("--adapters", nargs="*", default=ADAPTERS, choices=ADAPTERS)
    words.add_argument("--calls", nargs="*", type=int, default=(), help="at once")
    words.add_argument("--rounds", type=int, default=3)
    options = words.parse_args()
    chosen = tuple(BY_NAME[name] for name in dict.fromkeys([BASE, *options.rivals]))
    main(
        options.short,
        chosen,
        tuple(options.adapters),
        tuple(options.calls),
        options.rounds,
        options.beside,
    )

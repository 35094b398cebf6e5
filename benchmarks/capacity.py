"""
Calculate what a fleet needs of its Redis, its workers and its ledger, from measured costs.

`python -m benchmarks.capacity --rate 200 --latency 8` uses the costs in `fleet.json`, which
`python -m benchmarks.fleet --json benchmarks/fleet.json` measures. `--docs` writes the tables of
docs/scale.md again; a test compares them.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

INPUTS = Path(__file__).parent / "fleet.json"
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
STEPS = {
    "enqueue": "store the message, and wake a worker",
    "take": "one message out of its list; a worker takes up to eight at once when more wait",
    "begin": "the fencing number; the first call starts",
    "admit": "ask the breaker whether the call may be made",
    "record": "record how the call ended",
    "settle": "store the result, with its ledger row",
    "release": "acknowledge, in batches",
    "drain": "move the row to the database, 500 at once",
    "await": "the producer's `get()`",
}
OF_BREAKERS = ("admit", "record")
RENEWAL_INTERVAL_S, SURE_S, PING_EVERY_S, SEEN_S = 2.0, 0.8, 5.0, 5.0
"""How often leases are renewed, how long a closed breaker is trusted, how often a subscription to
changes is checked, and how long one snapshot serves all scrapes."""
SAFE = 0.6
"""The share of a core to plan with, so that bursts do not have to wait."""
BASE64 = 4 / 3
"""Celery's messages contain their body in base64."""


@dataclass(frozen=True)
class Plan:
    """A fleet to calculate for."""

    rate: float = 100.0
    """Completions a second."""
    latency: float = 10.0
    """Seconds that a provider takes for one completion."""
    concurrency: int = 100
    """Calls in flight in one worker."""
    workers: int = 0
    """0: as many as the calls in flight need."""
    prompt: int = 4_000
    answer: int = 2_000
    """Bytes."""
    providers: int = 3
    keep: float = 24 * 3600.0
    """Seconds that a result is kept."""
    waiting: int = 0
    """The most prompts that wait at once."""
    scrape: float = 15.0
    """Seconds between two scrapes of each worker."""

    @property
    def in_flight(self) -> float:
        """Calls in flight, by Little's law."""
        return self.rate * self.latency

    @property
    def fleet(self) -> int:
        """The number of workers; if the plan has none, four fifths of their slots are busy."""
        return self.workers or max(1, math.ceil(self.in_flight / (0.8 * self.concurrency)))


class Costs:
    """The measured costs, and sums of them."""

    def __init__(self, measured: Mapping[str, Any]) -> None:
        self.measured = measured
        idle, several = measured["workers_1"], measured["workers_8"]
        self.idle_us = (several["core"] - idle["core"]) * 1e6 / 7
        self.idle_bytes = (several["bytes_s"] - idle["bytes_s"]) / 7
        self.look_us = measured["look_10000"]["us"] / 10_000
        self.look_bytes = measured["look_10000"]["bytes"] / 10_000

    def us(self, *steps: str) -> float:
        """Add up the µs that steps cost the server's main thread."""
        return sum(float(self.measured[step]["us"]) for step in steps)

    @property
    def strict_us(self) -> float:
        """One completion, each call admitted and recorded by a round trip."""
        return self.us(*STEPS)

    @property
    def fast_us(self) -> float:
        """One completion whose breaker is known to be closed."""
        return self.strict_us - self.us(*OF_BREAKERS)

    @property
    def alive_us(self) -> float:
        """One completion by real workers at the highest rate measured, and by its producer."""
        fastest = max((self.measured[f"alive_{n}"] for n in (1, 3)), key=lambda seen: seen["rate"])
        return float(fastest["us"]) + self.us("enqueue", "await")

    def cores(self, plan: Plan) -> dict[str, float]:
        """Return shares of a core of Redis, by purpose."""
        admits = min(plan.rate, plan.fleet * plan.providers / SURE_S)
        return {
            "completions": plan.rate * self.alive_us / 1e6,
            "breakers": (admits * self.us("admit") + plan.fleet / PING_EVERY_S * self.us("ping"))
            / 1e6,
            "leases": plan.in_flight / RENEWAL_INTERVAL_S * self.us("tend_each") / 1e6,
            "workers": plan.fleet * self.idle_us / 1e6,
            "scrapes": (
                plan.fleet * self.us("scrape") / plan.scrape
                + plan.fleet * self.look_us * min(1 / SEEN_S, plan.fleet / plan.scrape)
            )
            / 1e6,
        }

    def memory(self, plan: Plan) -> dict[str, float]:
        """Return bytes in Redis, by purpose."""
        message = self.measured["waiting_bytes"] + BASE64 * plan.prompt - (BASE64 - 1) * 1_000
        return {
            "waiting": plan.waiting * message,
            "in hand": plan.in_flight * (message + self.measured["in_hand_bytes"]
                                         - self.measured["waiting_bytes"]),
            "results": plan.rate * plan.keep * (self.measured["result_bytes"] + plan.answer),
        }  # fmt: skip


def where(costs: Costs) -> str:
    """Return where and when it was measured."""
    return f"Measured {costs.measured['where']}, on loopback, beside other work."


def per_completion(costs: Costs) -> str:
    """Return the table of what one completion costs, step by step."""
    lines = ["| step | µs | bytes | |", "|---|--:|--:|---|"]
    for step, what in STEPS.items():
        cost = costs.measured[step]
        lines.append(f"| {step} | {cost['us']:.0f} | {cost['bytes']:,.0f} | {what} |")
    total = sum(costs.measured[step]["bytes"] for step in STEPS)
    lines.append(f"| **all** | **{costs.strict_us:.0f}** | **{total:,.0f}** | |")
    lines.append(
        f"| without {' and '.join(OF_BREAKERS)} | {costs.fast_us:.0f} | | a breaker that is closed "
        f"is read about every {SURE_S} s, not for each call |"
    )
    return "\n".join(lines)


def by_rate(costs: Costs) -> str:
    """Return the table of how Redis' load grows with completions."""
    lines = [
        "| completions a second | in flight | workers | core of Redis | for leases "
        "| results, 24 h | results, 1 h |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for rate in (10, 100, 500, 1_000, 2_000):
        plan = Plan(rate=rate)
        cores, day = costs.cores(plan), costs.memory(plan)["results"]
        used = sum(cores.values()) - cores["scrapes"]
        lines.append(
            f"| {rate:,} | {plan.in_flight:,.0f} | {plan.fleet:,} | {used:.0%} "
            f"| {cores['leases']:.0%} | {_size(day)} | {_size(day / 24)} |"
        )
    return "\n".join(lines)


def by_workers(costs: Costs) -> str:
    """Return the table of how it grows with workers alone."""
    lines = [
        "| workers | idle | breakers read | scrapes, each 15 s | one change received "
        "| connections, idle |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for workers in (10, 100, 1_000, 3_000, 10_000):
        plan = Plan(workers=workers, rate=math.inf, latency=0)
        fleet = {**costs.cores(Plan(workers=workers))}
        asked = costs.cores(plan)["breakers"]
        heard_ms = workers * costs.measured["publish_each_us"] / 1000
        lines.append(
            f"| {workers:,} | {fleet['workers']:.1%} | {asked:.1%} | {fleet['scrapes']:.1%} "
            f"| {heard_ms:,.1f} ms "
            f"| {workers * costs.measured['workers_8']['connections']:,.0f} |"
        )
    calculated = costs.cores(Plan(workers=300))["workers"]
    lines.append(
        f"\nCalculated from eight real workers. 300 simulated ones, which did what a real one's "
        f"threads do, took "
        f"{costs.measured['imitated_300']['core']:.1%} where the calculation says {calculated:.1%}."
    )
    return "\n".join(lines)


def limits(costs: Costs) -> str:
    """Return the table of what one server and one drainer can do at most."""
    strict_us = costs.alive_us + costs.us(*OF_BREAKERS)
    rows = {
        "completions a second that fill the core of Redis, by the steps above": 1e6 / costs.fast_us,
        "the same, measured with real workers": 1e6 / costs.alive_us,
        f"at {SAFE:.0%} of a core": SAFE * 1e6 / costs.alive_us,
        "the same, if each call admits and records by a round trip": SAFE * 1e6 / strict_us,
        f"idle workers at {SAFE:.0%} of a core": SAFE * 1e6 / costs.idle_us,
        "rows a second into SQLite, one drainer": costs.measured["sqlite_rows_s"],
        "rows a second into PostgreSQL, one drainer": costs.measured["postgresql_rows_s"],
        "prompts of 4 kB that wait in 1 GB": 1e9 / costs.memory(Plan(waiting=1))["waiting"],
        "results of 2 kB in 1 GB": 1e9 / (costs.measured["result_bytes"] + Plan().answer),
    }
    lines = ["| limit | |", "|---|--:|"]
    return "\n".join([*lines, *(f"| {name} | {_rounded(value)} |" for name, value in rows.items())])


BLOCKS: dict[str, Callable[[Costs], str]] = {
    "where": where,
    "per-completion": per_completion,
    "limits": limits,
    "by-rate": by_rate,
    "by-workers": by_workers,
}


def written(page: str, costs: Costs) -> str:
    """Return the page with its tables written again."""
    for name, make in BLOCKS.items():
        table = f"<!-- {name} -->\n{make(costs)}\n<!-- end -->"
        page = re.sub(f"<!-- {name} -->.*?<!-- end -->", table, page, flags=re.DOTALL)
    return page


def _size(number: float) -> str:
    unit = next((i for i in range(3) if number < 1000 ** (i + 1)), 3)
    return f"{_rounded(number / 1000**unit)} {('bytes', 'kB', 'MB', 'GB')[unit]}"


def _rounded(number: float) -> str:
    """Show two digits; further ones depend on the machine."""
    digits = float(f"{number:.2g}")
    whole = digits >= 10 or digits == int(digits)
    return f"{digits:,.0f}" if whole else f"{digits:,.1f}"


def main(words: list[str]) -> None:
    """Print what a plan needs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", action="store_true", help="write the tables of docs/scale.md")
    for field in fields(Plan):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    options = vars(parser.parse_args(words))
    costs = Costs(json.loads(INPUTS.read_text()))
    if options.pop("docs"):
        PAGE.write_text(written(PAGE.read_text(), costs))
        return
    plan = Plan(**options)
    print(f"{plan.in_flight:,.0f} calls in flight, {plan.fleet:,} workers of {plan.concurrency}")
    cores = costs.cores(plan)
    for name, share in {**cores, "all": sum(cores.values())}.items():
        print(f"Redis, CPU of a core   {name:14}{share:8.1%}")
    for name, number in costs.memory(plan).items():
        print(f"Redis, memory          {name:14}{_size(number):>8}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Run every benchmark: `make bench`, or `make bench-short` in minutes."""

import argparse

from benchmarks import (
    adapters,
    choosing,
    commands,
    delivery,
    enqueue,
    fleet,
    latency,
    ledger,
    load,
    outage,
    pools,
    report,
    soak,
    start,
    streaming,
)
from benchmarks.rivals.catalogue import BASE, BY_NAME

PAIR = (BY_NAME[BASE], BY_NAME["breakwater"])
LEVELS = (1200, 1500, 1750, 2000)
"""Calls at once, to find out how many of them one process holds."""


def main(short: bool) -> None:
    """Run them all; the short form leaves the results that are kept, and the pages, alone."""
    adapters.main()
    choosing.main()
    delivery.main()
    streaming.main()
    ledger.main()
    for each in (commands, enqueue, latency, start, soak):
        each.main(short)
    load.main(short)
    if not short:
        load.main(rivals=PAIR, adapters=("openai",), calls=LEVELS, rounds=1, beside=True)
    outage.main(short)
    if not short:
        report.main()
        pools.main()
        fleet.main()


if __name__ == "__main__":
    words = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    words.add_argument("--short", action="store_true", help="smaller sizes, in minutes")
    main(words.parse_args().short)

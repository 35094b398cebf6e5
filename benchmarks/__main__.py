"""Run every benchmark: `make bench`, or `make bench-short` in minutes."""

import argparse

from benchmarks import choosing, delivery, ledger, load, outage, report, streaming


def main(short: bool) -> None:
    """Run them all; the short form leaves the results that are kept, and the pages, alone."""
    choosing.main()
    delivery.main()
    streaming.main()
    ledger.main()
    load.main(short)
    outage.main(short)
    if not short:
        report.main()


if __name__ == "__main__":
    words = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    words.add_argument("--short", action="store_true", help="smaller sizes, in minutes")
    main(words.parse_args().short)

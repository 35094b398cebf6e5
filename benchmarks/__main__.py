"""Run every benchmark: `make bench`."""

from benchmarks import choosing, delivery, ledger

if __name__ == "__main__":
    choosing.main()
    delivery.main()
    ledger.main()

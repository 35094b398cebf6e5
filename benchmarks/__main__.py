"""Run every benchmark: `make bench`."""

from benchmarks import choosing, delivery, ledger, streaming

if __name__ == "__main__":
    choosing.main()
    delivery.main()
    streaming.main()
    ledger.main()

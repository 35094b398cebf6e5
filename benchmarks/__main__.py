"""Run every benchmark: `make bench`."""

from benchmarks import choosing, delivery

if __name__ == "__main__":
    choosing.main()
    delivery.main()

"""Run every benchmark: `make bench`."""

from benchmarks import choosing

if __name__ == "__main__":
    choosing.main()

"""
The official SDK in a ThreadPoolExecutor, without a queue: what is lost with the process is lost.

`python -m benchmarks.rivals.sdk_threads ROLE PROMPTS`
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from benchmarks.rivals.experiment import Experiment
from benchmarks.rivals.producer import prompt
from benchmarks.rivals.sdk import asking


def main(role: str, prompts: int) -> None:
    """Ask them all."""
    experiment = Experiment.read()
    ask = asking(experiment)
    with ThreadPoolExecutor(experiment.concurrency) as pool:
        for answer in pool.map(lambda number: ask(role, prompt(number)), range(prompts)):
            assert answer


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

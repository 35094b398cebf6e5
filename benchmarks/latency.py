"""
From `delay()` to the provider, at five prompts a second: beside a bare Celery task and the SDK.

Both workers are up, on one server; one producer enqueues now to the one, now to the other. The
provider, in a process of its own, subtracts the time in the prompt, which is when `delay()` was
called, from the time of the request's first bytes. `python -m benchmarks.latency [--short]`.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from statistics import median, quantiles
from typing import Any

from benchmarks.delivery import BARE
from benchmarks.stage import Stage, stage

A_SECOND = 5
WARM = 20
ROLES = """
providers:
  timing: {{adapter: openai-chat, model: breakwater, base_url: "{url}", api_key: none}}
roles:
  coder: {{chain: [timing]}}
"""
BARE_SDK = """
from openai import OpenAI
client = OpenAI(base_url=os.environ["TIMING_URL"], api_key="none", max_retries=0, timeout=30)

@app.task(name="asks")
def asks(role, prompt):
    completion = client.chat.completions.create(
        model="bare Celery", messages=[{"role": "user", "content": prompt}])
    return {**result, "text": completion.choices[0].message.content}
"""
PRODUCER = """
import sys, time
from bare import asks
from tasks import complete
due = time.monotonic()
for i in range(int(sys.argv[1])):
    for task in (complete, asks):
        task.delay("coder", str(time.time_ns()))
        due += 1 / float(sys.argv[2]) / 2
        time.sleep(max(due - time.monotonic(), 0))
"""


def main(short: bool = False) -> dict[str, Any]:
    """Print and return p50 and p99 of both, and how far they are apart."""
    number = 60 if short else 300
    late: dict[str, list[float]] = {"breakwater": [], "bare Celery": []}
    with _provider() as (url, lines), stage(TIMING_URL=url) as those:
        (those.folder / "roles.yaml").write_text(ROLES.format(url=url))
        # A database of its own: our workers consume Celery's default queue, too.
        those.environ["BARE_URL"] = those.environ["REDIS_URL"].replace("/0", "/1")
        bare = BARE.replace("REDIS_URL", "BARE_URL") + BARE_SDK
        (those.folder / "bare.py").write_text(bare)
        with ExitStack() as stack:
            for name in late:
                stack.enter_context(those.worker(name))
            _produce(those, WARM, A_SECOND * 4)
            list(islice(lines, 2 * WARM))
            _produce(those, number + 1, A_SECOND)
            list(islice(lines, 2))  # a process' first delay pays for its imports
            for line in islice(lines, 2 * number):
                name, _, ms = line.rpartition(" ")
                late[name].append(float(ms))
    return _report(late, f"{number} prompts each, {A_SECOND} a second")


def _produce(those: Stage, number: int, a_second: int) -> None:
    command = [sys.executable, "-c", PRODUCER, str(number), str(a_second)]
    subprocess.run(command, cwd=those.folder, env=those.environ, check=True)


@contextmanager
def _provider() -> Iterator[tuple[str, Iterator[str]]]:
    command = [sys.executable, "-m", "benchmarks.timing_provider"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout
        try:
            yield f"http://127.0.0.1:{provider.stdout.readline().strip()}/v1", provider.stdout
        finally:
            provider.kill()


def _report(late: dict[str, list[float]], runs: str) -> dict[str, Any]:
    print(f"\n{'from delay to the provider, ms':34}{'p50':>8}{'p99':>8}{'max':>8}   {runs}")
    figures: dict[str, Any] = {}
    for name, ms in late.items():
        p99 = quantiles(ms, n=100, method="inclusive")[98]
        figures[name] = {"p50_ms": median(ms), "p99_ms": p99, "max_ms": max(ms)}
        print(f"{name:34}{median(ms):8.2f}{p99:8.2f}{max(ms):8.2f}")
    for which in ("p50_ms", "p99_ms"):
        figures[which] = figures["breakwater"][which] - figures["bare Celery"][which]
    print(f"{'beside bare Celery':34}{figures['p50_ms']:+8.2f}{figures['p99_ms']:+8.2f}")
    return figures


if __name__ == "__main__":
    main("--short" in sys.argv)

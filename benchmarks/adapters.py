"""
CPU of one plain call through each adapter, and through the same SDK as its README has it.

One thread, one call after the other, against a simulated provider that answers at once: what is
left is the client's own work. Both ask for the same short prompt, over connections that are open.
Rounds alternate; the figure is the best round of each, since others on the machine only add.

`python -m benchmarks.adapters`
"""

import time
from collections.abc import Callable

from pydantic import SecretStr

from benchmarks.rivals.experiment import MAX_TOKENS, MODELS, Experiment, Target
from benchmarks.rivals.sdk import asking
from breakwater.content import Message
from simulator.client import Simulator
from tasks.config import ProviderSettings
from tasks.providers.base import Request
from tasks.providers.registry import Client

CALLS, ROUNDS = 300, 6
PROMPT = "Say hello to number 5"


def main() -> None:
    """Print µs a call, ours and the SDK's, and how they compare."""
    print(f"{'adapter':12}{'SDK µs':>8}{'ours µs':>9}{'ratio':>7}")
    with Simulator.start() as simulator:
        for adapter, model in MODELS.items():
            simulator.settings(adapter, latency="0")
            url = simulator.url(adapter)
            calls = _sdk(adapter, url), _ours(adapter, model, url)
            times_us = [[_cpu_us(call) for call in calls] for _ in range(ROUNDS)]
            sdk_us, ours_us = map(min, zip(*times_us, strict=True))
            print(f"{adapter:12}{sdk_us:8.0f}{ours_us:9.0f}{ours_us / sdk_us:7.2f}")


def _cpu_us(call: Callable[[], object]) -> float:
    call()
    began_s = time.thread_time()
    for _ in range(CALLS):
        call()
    return (time.thread_time() - began_s) * 1e6 / CALLS


def _sdk(adapter: str, url: str) -> Callable[[], object]:
    ask = asking(Experiment("", 1, 60.0, {"role": [Target("it", adapter, url)]}))
    return lambda: ask("role", PROMPT)


def _ours(adapter: str, model: str, url: str) -> Callable[[], object]:
    base_url = f"{url}/v1" if adapter == "openai" else url
    settings = ProviderSettings("it", adapter, model, SecretStr("k"), base_url)
    client = Client(settings)  # which closes it when it is gone
    request = Request(
        messages=(Message("user", PROMPT),), model=model, timeout_s=60.0,
        params={"max_output_tokens": MAX_TOKENS}, before_sending=lambda: None,
    )  # fmt: skip
    return lambda: client.get().complete(request)


if __name__ == "__main__":
    main()

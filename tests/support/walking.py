"""A walker over providers of a test's own, wired as a worker wires it."""

import time
from collections.abc import Mapping
from typing import Any

from breaker import Breakers
from breakwater.calls.call import CompletionCall
from tasks.admission.gate import closed_for
from tasks.admission.health import HealthGate
from tasks.answering.runtime import build_gate
from tasks.answering.trial import Clock
from tasks.answering.walk import ChainAnswer, ChainWalker
from tasks.config import Role, Settings
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.ledger.prices import PriceList
from tasks.providers.base import Provider
from tasks.providers.registry import Registry


class Walking:
    """The registry, the gates and the walker of some settings."""

    def __init__(
        self,
        settings: Settings,
        breakers: Breakers,
        providers: Mapping[str, Provider] | None = None,
    ) -> None:
        self.settings = settings
        self.registry = Registry(settings, providers)
        self.health = HealthGate(settings, breakers)
        self.gate = build_gate(self.health)

    def walker(self, clock: Clock = time.monotonic) -> ChainWalker:
        return ChainWalker(self.registry, self.gate, PriceList(self.settings), clock)

    def walk(
        self, call: CompletionCall, role: Role, *, clock: Clock = time.monotonic, **more: Any
    ) -> ChainAnswer:
        more.setdefault("recorder", AttemptRecorder({"task_id": "t1", "role": role.name}))
        more.setdefault("deadline", time.monotonic() + 60)
        return self.walker(clock).walk(call, role, task_id="t1", **more)

    def closed_for(self, role: Role) -> tuple[float, str]:
        return closed_for(self.gate, role.chain)

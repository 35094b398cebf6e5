"""
What the harness tells a rival: where Redis is, who answers which role, how many calls at once.

Every rival reads it from here, so that all of them ask the same providers in the same way. It
imports nothing but the standard library: a rival runs in an environment of its own.
"""

import json
import os
from dataclasses import asdict, dataclass
from typing import Self

VARIABLE = "BENCHMARK"
MODELS = {"anthropic": "claude-haiku-4-5", "openai": "gpt-5-mini", "google": "gemini-2.5-flash"}
"""One whose price is known to everybody who has prices."""
MAX_TOKENS = 1024


@dataclass(frozen=True)
class Target:
    """One provider."""

    name: str
    adapter: str
    """One of `MODELS`."""
    base_url: str
    """Without `/v1`."""

    @property
    def model(self) -> str:
        """Its model."""
        return MODELS[self.adapter]


@dataclass(frozen=True)
class Experiment:
    """The whole of it."""

    redis_url: str
    concurrency: int
    """Calls at once in a worker process."""
    timeout_s: float
    """Of a call."""
    roles: dict[str, list[Target]]
    """Whom to ask, in order."""

    @classmethod
    def read(cls) -> Self:
        """Read what the harness wrote."""
        values = json.loads(os.environ[VARIABLE])
        roles = {
            role: [Target(**each) for each in chain] for role, chain in values["roles"].items()
        }
        return cls(**{**values, "roles": roles})

    def environment(self) -> dict[str, str]:
        """Write it for a rival's process."""
        return {VARIABLE: json.dumps(asdict(self))}

    @property
    def targets(self) -> dict[str, Target]:
        """Every provider by its name."""
        return {target.name: target for chain in self.roles.values() for target in chain}

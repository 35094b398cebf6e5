"""
What happened to a task, one attempt at a time.

An attempt is one target of the chain, tried or passed over. Attempts travel in the result, in the
errors at `.get()`, to the log, one line each, and to the ledger, one row each.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Literal

RETRIED = "Retried"
"""The error of the attempt behind which the next life of a dead letter's task begins."""
ABANDONED = frozenset(
    {"Cancelled", "DeadlineExceeded", "DeliverySuperseded", "Superseded", "WorkerLost"}
)
"""
Errors of calls that were given up before they ended; they may have been paid.

Older rows name a DeliverySuperseded call "Superseded".
"""

NOT_CALLED = frozenset({"rejected", "cached"})
"""Outcomes for which nothing went out to a provider: no time of its, no success, no failure."""

Outcome = Literal["succeeded", "failed", "rejected", "cached"]


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens as the provider counted them; None where it did not count, or sent no whole number.

    `input_tokens` counts all input, cached and cache-written included; `output_tokens` all that
    is billed as output, reasoning included.
    """

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cached_input_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    reasoning_tokens: int | None = 0

    def as_dict(self) -> dict[str, int | None]:
        """Return the counts as the result's JSON object."""
        return asdict(self)


UNCOUNTED = Usage(None, None, None, None, None)
"""The usage of an answer whose provider sent no counts."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call cost; nothing is known of one that brought no usage."""

    usd: Decimal | None = None
    """US dollars, not rounded; None when no price is known."""
    source: str | None = None
    """`roles.yaml`, `genai-prices`, or `unpriced`; None for a call that brought no usage."""
    version: str | None = None

    @property
    def text(self) -> str | None:
        """Return the dollars as a decimal string."""
        return None if self.usd is None else f"{self.usd.normalize():f}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One target tried, passed over because its breaker refused, or not needed."""

    provider: str
    model: str
    outcome: Outcome
    error: str | None = None
    """The class of the error, as in `breakwater.errors`; None when there is an answer."""
    status: int | None = None
    """The HTTP status of the error, None where there was none."""
    latency_ms: int = 0
    first_token_ms: int | None = None
    """To the first delta; None for a call that was not streamed, or said nothing."""
    why: str = ""
    """Why this target was chosen or passed over, in words."""
    number: int = 0
    """Counts a task's attempts from 1; 0 for those of other workers."""
    place: int = 0
    """Of the target in the chain; the first is 0."""
    started_ms: int = 0
    """By this host's clock."""
    usage: Usage = field(default_factory=Usage)
    cost: Cost = field(default_factory=Cost)
    request_id: str | None = None
    """The vendor's id of the request."""

    @property
    def is_abandoned(self) -> bool:
        """Tell a call whose end nobody waited for."""
        return self.error in ABANDONED

    @property
    def told(self) -> str:
        """The outcome as the ledger and the metrics tell it: what may have been paid apart."""
        return "abandoned" if self.is_abandoned else self.outcome

    def as_dict(self) -> dict[str, Any]:
        """Return the attempt as the result's JSON object."""
        return {
            "provider": self.provider,
            "model": self.model,
            "outcome": self.outcome,
            "error": self.error,
            "status": self.status,
            "latency_ms": self.latency_ms,
            "cost_usd": self.cost.text,
            "why": self.why,
        }

    def row(self, task: Mapping[str, Any]) -> str:
        """
        Return the attempt's row of the ledger, as JSON.

        Args:
            task: What the rows of a task have in common.
        """
        return json.dumps(
            {
                **task,
                **self.as_dict(),
                **self.usage.as_dict(),
                "outcome": self.told,
                "attempt": self.number,
                "failover": int(self.place > 0),
                "started_ms": self.started_ms,
                "first_token_ms": self.first_token_ms,
                "price_source": self.cost.source,
                "price_version": self.cost.version,
                "request_id": self.request_id,
            }
        )

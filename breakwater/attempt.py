"""
The attempts of a task.

An attempt is one target of the chain that was called or passed over. Results and errors contain a
task's attempts. The log has one line per attempt, and the ledger one row.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal, InvalidOperation
from types import NoneType
from typing import Any, Literal, TypedDict

from breakwater.content import read_fields

RETRIED = "Retried"
"""The error of the attempt that marks an operator's retry of a dead letter."""
ABANDONED = frozenset(
    {"Cancelled", "DeadlineExceeded", "DeliverySuperseded", "Superseded", "WorkerLost"}
)
"""
Errors of calls that were abandoned before they ended; they may have been paid for.

Older rows name a DeliverySuperseded call "Superseded".
"""

NOT_CALLED = frozenset({"rejected", "cached"})
"""Outcomes without a call to a provider; they count neither as success nor as failure."""

Outcome = Literal["succeeded", "failed", "rejected", "cached"]


class UsageJson(TypedDict):
    """`Usage` as a JSON object."""

    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None


class AttemptJson(TypedDict):
    """`Attempt` as the JSON object in results and errors."""

    provider: str
    model: str
    outcome: Outcome
    error: str | None
    status: int | None
    latency_ms: int
    cost_usd: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens as the provider counted them; None if it did not count, or sent no whole number.

    `input_tokens` counts all input, cached and cache-written included; `output_tokens` counts
    everything that is billed as output, reasoning included.
    """

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cached_input_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    reasoning_tokens: int | None = 0

    def as_dict(self) -> UsageJson:
        """Return the counts as the result's JSON object."""
        return UsageJson(  # 0.2 µs; `asdict` takes 3.4
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_input_tokens=self.cached_input_tokens,
            cache_write_tokens=self.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens,
        )

    @classmethod
    def from_dict(cls, value: object) -> "Usage":
        """
        Read the counts of a result; a missing count is not known.

        Raises:
            ValueError: A count is not a whole number.
        """
        return cls(**{**asdict(UNCOUNTED), **read_fields("a usage", value, _COUNTS)})


UNCOUNTED = Usage(None, None, None, None, None)
"""The usage of an answer whose provider sent no counts."""
_COUNTS: Mapping[str, tuple[type, ...]] = dict.fromkeys(asdict(UNCOUNTED), (int, NoneType))


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one call; unknown if the call returned no usage."""

    usd: Decimal | None = None
    """US dollars, not rounded; None if no price is known."""
    source: str | None = None
    """`roles.yaml`, `genai-prices`, or `unpriced`; None for a call without usage."""
    version: str | None = None

    @property
    def text(self) -> str | None:
        """Return the dollars as a decimal string."""
        if self.usd is None:
            return None
        return f"{self.usd.normalize():f}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One target that was called, passed over, or not needed because of a cached answer."""

    provider: str
    model: str
    outcome: Outcome
    error: str | None = None
    """The class of the error, as in `breakwater.errors`; None if there is an answer."""
    status: int | None = None
    """The HTTP status of the error; None if there was none."""
    latency_ms: int = 0
    first_token_ms: int | None = None
    """The time to the first delta; None for a call without a stream, or without any delta."""
    why: str = ""
    """Why this target was chosen or passed over, as text."""
    number: int = 0
    """Counts a task's attempts from 1; 0 for those of other workers."""
    place: int = 0
    """The target's position in the chain, from 0."""
    started_ms: int = 0
    """By this host's clock."""
    usage: Usage = field(default_factory=Usage)
    cost: Cost = field(default_factory=Cost)
    request_id: str | None = None
    """The vendor's id of the request."""

    @property
    def is_abandoned(self) -> bool:
        """Whether the call was abandoned before it ended."""
        return self.error in ABANDONED

    @property
    def recorded_outcome(self) -> str:
        """The outcome for ledger and the metrics: `abandoned` if the call may have been paid."""
        return "abandoned" if self.is_abandoned else self.outcome

    def as_dict(self) -> AttemptJson:
        """Return the attempt as the result's JSON object."""
        return AttemptJson(
            provider=self.provider,
            model=self.model,
            outcome=self.outcome,
            error=self.error,
            status=self.status,
            latency_ms=self.latency_ms,
            cost_usd=self.cost.text,
            why=self.why,
        )

    @classmethod
    def from_dict(cls, value: object) -> "Attempt":
        """
        Read an attempt from the JSON object that `as_dict` wrote; ignore unknown keys.

        An outcome that only a newer version has is kept as it is.

        Raises:
            ValueError: The provider, the model or the outcome is missing, or a value has the
                wrong type. The message never contains the value.
        """
        fields = read_fields("an attempt", value, _JSON_TYPES, _REQUIRED)
        cost = Cost(_dollars(fields.pop("cost_usd", None)))
        return cls(**fields, cost=cost)

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
                "outcome": self.recorded_outcome,
                "attempt": self.number,
                "failover": int(self.place > 0),
                "started_ms": self.started_ms,
                "first_token_ms": self.first_token_ms,
                "price_source": self.cost.source,
                "price_version": self.cost.version,
                "request_id": self.request_id,
            }
        )


_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "provider": (str,),
    "model": (str,),
    "outcome": (str,),
    "error": (str, NoneType),
    "status": (int, NoneType),
    "latency_ms": (int,),
    "cost_usd": (str, NoneType),
    "why": (str,),
}
_REQUIRED = frozenset({"provider", "model", "outcome"})


def read_attempts(values: Iterable[object]) -> list[Attempt]:
    """
    Read the attempts that Redis stores of a task.

    An entry that is not a valid attempt is left out: a damaged history must neither stop a task
    nor hide a dead letter.
    """
    attempts = []
    for value in values:
        try:
            attempts.append(Attempt.from_dict(value))
        except ValueError:
            continue
    return attempts


def attempts_as_json(attempts: Iterable[Attempt]) -> list[AttemptJson]:
    """Return attempts as the list that results, errors and Redis hold."""
    return [attempt.as_dict() for attempt in attempts]


def _dollars(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        dollars = Decimal(text)
    except InvalidOperation:
        raise ValueError("an attempt: cost_usd must be a decimal number") from None
    if not dollars.is_finite():
        raise ValueError("an attempt: cost_usd must be a finite number")
    return dollars

"""
The log of every call, counted on arrival and before any fault, so that tests can rely on it.

A hit is complete once `ended_at_ms` is set; until then its call is in flight.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from simulator.wires.asked import Summary


@dataclass(slots=True)
class Hit:
    """One call."""

    seq: int
    """The number of the call, from 1, over all labels and across resets."""
    label: str
    wire: str
    call: str
    """`generate`, `models`, `caches`, or `unknown` for a path that no vendor has."""
    key_last4: str
    started_at_ms: float
    """Epoch time in milliseconds, with microseconds as the fraction."""
    in_flight: int
    """The calls of this label in flight at the arrival, this one included."""
    in_flight_total: int
    """The same for all labels."""
    ended_at_ms: float | None = None
    model: str = ""
    stream: bool = False
    body_sha256: str = ""
    status: int | None = None
    """The status that was sent; None if nothing was sent."""
    fault: str | None = None
    """The fault that struck: its kind, or its status as text."""
    client_gone: bool = False
    """The client disconnected before its answer was sent."""
    input_tokens: int = 0
    output_tokens: int = 0
    asked: Summary | None = None
    """None if the call does not ask for an answer, or no vendor could read it."""

    @property
    def request_id(self) -> str:
        """The id that is sent to the client."""
        return f"req_{self.seq:012d}"

    def as_dict(self) -> dict[str, Any]:
        """Return the hit as the JSON object of the control API."""
        return {**asdict(self), "request_id": self.request_id}


class HitLog:
    """
    The newest hits, in order of arrival.

    Args:
        size: The number of hits to keep; older ones are dropped and counted.
    """

    def __init__(self, size: int) -> None:
        self._hits: deque[Hit] = deque(maxlen=size)
        self._seq = 0
        self.in_flight: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        """The number of arrivals of each label since its last reset."""

    @contextmanager
    def arrival(self, label: str, wire: str, call: str, key: str) -> Iterator[Hit]:
        """Log a call from its arrival to its end."""
        self._seq += 1
        self.counts[label] += 1
        self.in_flight[label] += 1
        hit = Hit(
            self._seq, label, wire, call, key[-4:], _now_ms(),
            self.in_flight[label], self.in_flight.total(),
        )  # fmt: skip
        self._hits.append(hit)
        try:
            yield hit
        finally:
            hit.ended_at_ms = _now_ms()
            self.in_flight[label] -= 1

    def since(self, seq: int, label: str | None, limit: int) -> dict[str, Any]:
        """Return up to `limit` hits after `seq`, and the number to continue from."""
        found: list[dict[str, Any]] = []
        for hit in self._hits:
            if hit.seq > seq and label in (None, hit.label):
                if len(found) == limit:
                    return {"hits": found, "next": found[-1]["seq"], "more": True}
                found.append(hit.as_dict())
        return {"hits": found, "next": self._seq, "more": False}

    def forget(self, label: str | None) -> None:
        """Drop the hits of a label, or all; the numbering continues."""
        kept = [hit for hit in self._hits if label not in (None, hit.label)]
        self._hits = deque(kept, maxlen=self._hits.maxlen)
        for name in [label] if label else list(self.counts):
            del self.counts[name]


def _now_ms() -> float:
    return time.time_ns() // 1_000 / 1_000

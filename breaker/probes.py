"""
The probes this process is running: their leases are renewed, and given back when forgotten.

One daemon thread, started with the first probe and gone after the last, renews every lease at a
third of its length. A lease outlives its process by its own length at most.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from breaker import threads
from breaker.state import BreakerState, Rules

# A probe that runs longer has lost its thread: its slot goes to another.
PROBE_MAX_S = 900.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A lease held by this process; `until_s` is when renewing ends, on the monotonic clock."""

    token: str
    view: BreakerState
    rules: Rules
    until_s: float


class Probes:
    """
    Keep leases alive.

    Args:
        renew: Lets the leases of these tokens of one breaker begin again.
        give_back: Reports a probe nobody waits for as neutral.
    """

    def __init__(
        self,
        renew: Callable[[str, Rules, list[str]], object],
        give_back: Callable[[Probe], object],
    ) -> None:
        self._renew = renew
        self._give_back = give_back
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child: the leases are the parent's, the thread is not here."""
        self._running: dict[str, Probe] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        # put() of a SimpleQueue may be called from __del__, wherever the collector runs it.
        self._forgotten: queue.SimpleQueue[str] = queue.SimpleQueue()

    def add(self, token: str, view: BreakerState, rules: Rules) -> None:
        """Keep the lease of a probe that begins; `view` is the breaker at its admission."""
        with self._lock:
            self._running[token] = Probe(token, view, rules, time.monotonic() + PROBE_MAX_S)
            if self._thread is None:
                self._thread = threads.start(self._keep, "breaker-probes", self._forgotten)

    def done(self, token: str) -> None:
        """Let go of a probe that has ended."""
        self._running.pop(token, None)

    def forget(self, token: str) -> None:
        """Give the lease back soon; takes no lock, safe from a finalizer."""
        if token in self._running:
            self._forgotten.put(token)

    def tokens(self, name: str) -> list[str]:
        """Name the probes running for a breaker."""
        return [token for token, probe in self._running.copy().items() if probe.view.name == name]

    def _keep(self, forgotten: "queue.SimpleQueue[str]") -> None:
        renewed_at_s = time.monotonic()
        while (pause_s := self._pause_s()) is not None:
            try:
                token = forgotten.get(timeout=max(0.0, renewed_at_s + pause_s - time.monotonic()))
            except queue.Empty:
                renewed_at_s = time.monotonic()
                self._renew_all(renewed_at_s)
            else:
                probe = self._running.pop(token, None)
                if probe:
                    self._give_back(probe)

    def _pause_s(self) -> float | None:
        """A third of the shortest lease; None, and the thread ends, when no probe is running."""
        with self._lock:
            if not self._running:
                self._thread = None
                return None
            return min(probe.rules.lease_s for probe in self._running.copy().values()) / 3

    def _renew_all(self, now_s: float) -> None:
        by_name: dict[str, tuple[Rules, list[str]]] = {}
        for token, probe in self._running.copy().items():
            if probe.until_s <= now_s:
                self.done(token)
            else:
                by_name.setdefault(probe.view.name, (probe.rules, []))[1].append(token)
        for name, (rules, tokens) in by_name.items():
            self._renew(name, rules, tokens)

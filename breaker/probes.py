"""
Renew the leases of the probes that this process runs, and release those of dropped probes.

One daemon thread renews each lease after a third of its length. It starts with the first probe and
ends after the last. A lease outlives its process by at most its own length.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from breaker import threads
from breaker.state import BreakerState, Rules

PROBE_MAX_S = 900.0
"""A probe that runs longer has lost its thread: its lease is no longer renewed."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A lease of this process; it is renewed until `until_s` of the monotonic clock."""

    token: str
    view: BreakerState
    rules: Rules
    until_s: float


class Probes:
    """
    The probes that this process runs.

    Args:
        renew: Restarts the leases of some tokens of one breaker.
        release: Reports a dropped probe as neutral.
    """

    def __init__(
        self,
        renew: Callable[[str, Rules, list[str]], object],
        release: Callable[[Probe], object],
    ) -> None:
        self._renew = renew
        self._release = release
        self.restart()

    def restart(self) -> None:
        """Start over in a forked child: the leases are the parent's, and no thread runs."""
        self._running: dict[str, Probe] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        # put() of a SimpleQueue is safe in __del__, wherever the collector runs it.
        self._dropped: queue.SimpleQueue[str] = queue.SimpleQueue()

    def add(self, token: str, view: BreakerState, rules: Rules) -> None:
        """Renew the lease of a probe from now on; `view` is the breaker at the admission."""
        with self._lock:
            self._running[token] = Probe(token, view, rules, time.monotonic() + PROBE_MAX_S)
            if self._thread is None:
                self._thread = threads.start(self._keep_leases, "breaker-probes", self._dropped)

    def done(self, token: str) -> None:
        """Stop renewing the lease of a probe: it has ended."""
        self._running.pop(token, None)

    def forget(self, token: str) -> None:
        """Release the lease of a dropped probe soon; takes no lock, is safe in a finalizer."""
        if token in self._running:
            self._dropped.put(token)

    def tokens(self, name: str) -> list[str]:
        """Return the tokens of the probes that run for a breaker."""
        return [token for token, probe in self._running.copy().items() if probe.view.name == name]

    def _keep_leases(self, dropped: "queue.SimpleQueue[str]") -> None:
        renewed_at_s = time.monotonic()
        while (pause_s := self._pause_s()) is not None:
            try:
                token = dropped.get(timeout=max(0.0, renewed_at_s + pause_s - time.monotonic()))
            except queue.Empty:
                renewed_at_s = time.monotonic()
                self._renew_due(renewed_at_s)
            else:
                probe = self._running.pop(token, None)
                if probe:
                    self._release(probe)

    def _pause_s(self) -> float | None:
        """Return a third of the shortest lease; None ends the thread, as no probe runs."""
        with self._lock:
            if not self._running:
                self._thread = None
                return None
            return min(probe.rules.lease_s for probe in self._running.copy().values()) / 3

    def _renew_due(self, now_s: float) -> None:
        by_name: dict[str, tuple[Rules, list[str]]] = {}
        for token, probe in self._running.copy().items():
            if probe.until_s <= now_s:
                self.done(token)
            else:
                by_name.setdefault(probe.view.name, (probe.rules, []))[1].append(token)
        for name, (rules, tokens) in by_name.items():
            self._renew(name, rules, tokens)

"""
Parked queues: a role is not consumed while none of its targets may be called.

The first task that finds every target of its chain closed goes back to the head of its role's
queue and parks the queue until the earliest target may be called again. Then a few trials may
pass, and an answer that leaves its target's gate fully open opens the queue. This module is the
shortcut: when another role's call opens a gate, every queue that waits for it is opened at once.
"""

import time
from collections.abc import Iterable
from typing import cast

import structlog

from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.redis.text import to_text
from tasks.admission.gate import Gate, closed_for
from tasks.config import Role, Settings, Target
from tasks.delivery.delivery_store import DeliveryStore

RECHECK_S = 10.0
"""An operator's override of a breaker adds no event; a parked queue is checked this often."""

Entries = list[tuple[bytes | str, object]]

_log = structlog.get_logger("breakwater")


class Parking:
    """Opens the parked queues of one roles file when their targets may be called again."""

    def __init__(self, settings: Settings, gate: Gate, store: DeliveryStore) -> None:
        self._settings = settings
        self._roles = {queue_of(name): role for name, role in settings.roles.items()}
        if settings.serves_any_role:
            self._roles[COMMON_QUEUE] = settings.role("any")
        self._gate = gate
        self._store = store
        self._checked_at: dict[str, float] = {}  # by queue, on the monotonic clock
        self._last_ids: dict[str, str] = {}  # by stream, of the last entry that was read

    def closed_for(self, role: Role) -> tuple[float, str]:
        """Return for how many seconds no target of a role may be called, and why; 0 if one may."""
        return closed_for(self._gate, role.chain)

    def trial_count(self, role: Role) -> int:
        """Return how many calls of a role are enough to find out whether a target is back."""
        providers = self._settings.providers
        return min(providers[target.provider].breaker.success_threshold for target in role.chain)

    def watch(self, queues: Iterable[str], within_s: float) -> None:
        """
        Open the parked queues that can be served, after the next event of a gate or in time.

        Args:
            queues: The parked ones; those of other roles files are left alone.
            within_s: How long to wait for an event at most.

        Raises:
            RedisError: Redis is away.
        """
        mine = [queue for queue in queues if queue in self._roles]
        streams = self._follow(mine)
        now = time.monotonic()
        for queue in mine:
            if now - self._checked_at.get(queue, -RECHECK_S) >= RECHECK_S:
                self._checked_at[queue] = now
                self._open(queue)
        if not streams:
            time.sleep(within_s)
            return
        if self._has_event(streams, within_s):
            for queue in mine:
                self._open(queue)

    def _follow(self, queues: list[str]) -> list[str]:
        """Return the streams to wait on; a new one is followed from its newest entry on."""
        targets = {target for queue in queues for target in self._roles[queue].chain}
        streams = {stream for target in targets for stream in self._gate.signals(target)}
        for stream in streams - self._last_ids.keys():
            newest = cast("Entries", self._store.client.xrevrange(stream, count=1))
            self._last_ids[stream] = to_text(newest[0][0]) if newest else "0"
        return sorted(streams)

    def _has_event(self, streams: list[str], within_s: float) -> bool:
        after = {stream: self._last_ids[stream] for stream in streams}
        block_ms = max(1, round(within_s * 1000))
        reply = self._store.client.xread(after, block=block_ms)  # type: ignore[arg-type] # a dict is one
        for stream, entries in cast("list[tuple[bytes | str, Entries]]", reply or []):
            self._last_ids[to_text(stream)] = to_text(entries[-1][0])
        return bool(reply)

    def _open(self, queue: str) -> None:
        target = self._first_open(self._roles[queue])
        if target is None:
            return
        why = f"{target.provider} is closed"
        if self._store.open(queue, why):
            _log.info("queue.opened", queue=queue, why=why)

    def _first_open(self, role: Role) -> Target | None:
        """Return a target whose gates admit every call; None while there are trials at most."""
        for target in role.chain:
            if self._gate.look(target).admits_all:
                return target
        return None

"""
Parked queues: a role whose whole chain is closed is not consumed until a target is back.

The first task that finds every breaker of its chain open or held back goes to the head of its
role's queue and parks it until the earliest reopening. Then a few may pass, and when one of them
is answered by a closed breaker the queue is open. Here is the shortcut: a breaker that closes,
by another role's doing, opens every queue it can serve, at once.
"""

import time
from collections.abc import Iterable
from typing import Any, cast

import structlog

from breakwater.messaging.names import COMMON_QUEUE, queue_of
from tasks.config import Role, Settings, Target
from tasks.delivery.store import Store
from tasks.providers.registry import Registry

LOOK_EVERY_S = 10.0
"""An operator's hand on a breaker makes no event; it is noticed after this."""

_log = structlog.get_logger("breakwater")


class Parking:
    """Watches the breakers for the queues that wait for them."""

    def __init__(self, settings: Settings, registry: Registry, store: Store) -> None:
        self._roles: dict[str, list[Role]] = {
            queue_of(name): [role] for name, role in settings.roles.items()
        }
        self._roles[COMMON_QUEUE] = [settings.role("any")] if settings.serves_any_role else []
        self._registry = registry
        self._store = store
        self._looked: dict[str, float] = {}  # by queue, on the monotonic clock
        self._last: dict[str, str] = {}  # by stream, the last entry read

    def watch(self, queues: Iterable[str], within_s: float) -> None:
        """
        Open those of these parked queues that can be served; wait for a breaker's next event.

        Raises:
            RedisError: Redis is away.
        """
        mine = {queue: roles for queue in queues if (roles := self._roles.get(queue))}
        names = {
            name for target in _targets(mine.values()) for name in self._registry.names(target)
        }
        streams = {f"breaker:{{{name}}}:events" for name in names}
        for stream in streams - self._last.keys():
            newest = cast("list[Any]", self._store.client.xrevrange(stream, count=1))
            self._last[stream] = _text(newest[0][0]) if newest else "0"
        now = time.monotonic()
        for queue in mine:
            if now - self._looked.get(queue, -LOOK_EVERY_S) >= LOOK_EVERY_S:
                self._looked[queue] = now
                self._open(queue)
        if not streams:
            time.sleep(within_s)
            return
        told = self._store.client.xread(
            {stream: self._last[stream] for stream in streams}, block=max(1, round(within_s * 1000))
        )
        for stream, entries in cast("list[Any]", told or []):
            self._last[_text(stream)] = _text(entries[-1][0])
        if told:
            for queue in mine:
                self._open(queue)

    def _open(self, queue: str) -> None:
        for target in _targets([self._roles[queue]]):
            if self._registry.is_closed(target):
                if self._store.open(queue, f"{target.provider} is closed"):
                    _log.info("queue.opened", queue=queue, why=f"{target.provider} is closed")
                return


def _targets(roles: Iterable[list[Role]]) -> set[Target]:
    return {target for each in roles for role in each for target in role.chain}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

"""
Redis while it answers, this process's memory while it does not.

After a failure Redis is left alone for a second. Then one caller tries Redis again while all others
go on locally. So a frozen Redis costs each process one socket timeout a second; in the first
instant, one for each thread that was just asking. When Redis answers again, its state wins: local
counts are dropped.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog
from redis.exceptions import RedisError

from breaker.changes import ChangeListener
from breaker.local_storage import LocalStorage
from breaker.redis_storage import RedisStorage
from breaker.state import BreakerState, Forced, Report, Rules, State, StorageReply
from breaker.views import ViewCache

T = TypeVar("T")

REDIS_RETRY_S = 1.0
"""The time for which Redis is left alone after a failure."""

log = structlog.get_logger("breaker")


class FailoverStorage:
    """
    A `FleetStorage` over Redis and `LocalStorage`; every `RedisError` counts as an outage.

    Args:
        redis: The shared breakers.
        tokens: Returns the tokens of the probes that this process runs for a breaker, so that
            these keep their leases in an outage.
        clock: Seconds, never stepping back.
        changes: Receives what other processes change; None: Redis is asked for each call.
    """

    def __init__(
        self,
        redis: RedisStorage,
        tokens: Callable[[str], Iterable[str]] = lambda _: (),
        clock: Callable[[], float] = time.monotonic,
        changes: ChangeListener | None = None,
    ) -> None:
        self.redis = redis
        self.view_cache = ViewCache(clock, changes)
        self._tokens = tokens
        self._clock = clock
        self._changes = changes
        self._announced: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """Start over in a forked child, where no lock of the parent can be trusted."""
        self._lock = threading.Lock()
        self._is_away = False
        self._retry_at_s = 0.0
        self.local = LocalStorage(self._clock)
        self.view_cache.restart()
        if self._changes:
            self._changes.restart()

    def close(self) -> None:
        """Stop listening to changes."""
        if self._changes:
            self._changes.close()

    def admit(self, name: str, rules: Rules, token: str) -> StorageReply:
        """Admit or refuse a call; skip Redis while a fresh view shows that it would be admitted."""
        if view := self._fresh_closed_view(name):
            return _accept(view)
        return self._step(name, rules, lambda storage: storage.admit(name, rules, token))

    def record(self, name: str, rules: Rules, report: Report) -> StorageReply | None:
        """
        Count the outcome of an admitted call; in an outage it counts locally.

        A success changes a closed breaker only if there is a run of failures to end. Redis is
        skipped while a fresh view shows that there is none.

        Returns:
            None for a call that was admitted locally, when Redis is back: Redis does not know it.
        """
        if report.source == "local":
            if not self._is_away:
                return None
            return self._step_locally(
                name, rules, lambda storage: storage.record(name, rules, report)
            )
        if (
            report.outcome == "success"
            and not report.retry_after_s
            and (view := self._fresh_closed_view(name))
            and (view.failures, view.generation) == (0, report.generation)
        ):
            return _accept(view)
        return self._step(name, rules, lambda storage: storage.record(name, rules, report))

    def renew(self, name: str, rules: Rules, tokens: Iterable[str]) -> StorageReply:
        """Restart the leases of running probes."""
        return self._step(name, rules, lambda storage: storage.renew(name, rules, tokens))

    def peek(self, name: str, rules: Rules) -> BreakerState:
        """Read the state of a breaker."""
        if reading := self._try_redis(lambda redis: redis.peek(name, rules)):
            view, asked_at_s = reading
            self.view_cache.keep(view, asked_at_s)
            return view
        self._seed(name, rules)
        return self.local.peek(name, rules)

    def force(
        self, name: str, rules: Rules, *, to: State | None = None, forced: Forced | str = ""
    ) -> StorageReply:
        """
        Make an operator's change, for the whole fleet or not at all.

        Raises:
            RedisError: Redis does not answer.
        """
        asked_at_s = self._clock()
        reply = self.redis.force(name, rules, to=to, forced=forced)
        self._mark_back()
        self._keep(name, reply, asked_at_s)
        return reply

    def exists(self, name: str) -> bool:
        """
        Return whether any process has used a breaker of this name.

        While changes are received the names are read once: each new name arrives as a change.
        """
        if name in self._announced or self.local.has(name):
            return True
        known = self.view_cache.knows(name)
        if known is not None:
            return known
        if reading := self._try_redis(lambda redis: redis.names()):
            names, asked_at_s = reading
            self.view_cache.keep_names(names, asked_at_s)
        return name in self.view_cache.names

    def views(self) -> list[BreakerState]:
        """Return the last known state of each breaker, sorted by name; no I/O."""
        views = self.view_cache.all()
        if self._is_away:
            views |= self.local.views()
        return [views[name] for name in sorted(views)]

    def peek_all(self) -> list[BreakerState]:
        """Read the states of all breakers; in an outage, return `views`."""
        if reading := self._try_redis(lambda redis: redis.peek_all()):
            views, asked_at_s = reading
            for view in views:
                self.view_cache.keep(view, asked_at_s)
            return views
        return self.views()

    def _fresh_closed_view(self, name: str) -> BreakerState | None:
        if self._is_away:
            return None
        return self.view_cache.fresh_closed(name)

    def _step(
        self, name: str, rules: Rules, step: Callable[[RedisStorage | LocalStorage], StorageReply]
    ) -> StorageReply:
        if reading := self._try_redis(step):
            reply, asked_at_s = reading
            self._keep(name, reply, asked_at_s)
            return reply
        return self._step_locally(name, rules, step)

    def _step_locally(
        self, name: str, rules: Rules, step: Callable[[LocalStorage], StorageReply]
    ) -> StorageReply:
        self._seed(name, rules)
        return step(self.local)

    def _seed(self, name: str, rules: Rules) -> None:
        """Begin a breaker in memory with its last known state."""
        kept = self.view_cache.get(name)
        if kept and not self.local.has(name):
            view, asked_at_s = kept
            self.local.seed(view, self._clock() - asked_at_s, self._tokens(name), rules)

    def _try_redis(self, step: Callable[[RedisStorage], T]) -> tuple[T, float] | None:
        """Run a step in Redis; return its result and when it was asked for, None if it is away."""
        if not self._may_try():
            return None
        asked_at_s = self._clock()
        try:
            result = step(self.redis)
        except RedisError as error:
            self._mark_away(error)
            return None
        self._mark_back()
        return result, asked_at_s

    def _may_try(self) -> bool:
        if not self._is_away:
            return True
        with self._lock:
            now = self._clock()
            if now < self._retry_at_s:
                return False
            self._retry_at_s = now + REDIS_RETRY_S
            return True

    def _mark_away(self, error: RedisError) -> None:
        with self._lock:
            is_first, self._is_away = not self._is_away, True
            self._retry_at_s = self._clock() + REDIS_RETRY_S
            if is_first:
                self.local.clear()
        if is_first:
            log.warning("breaker.redis_away", error=type(error).__name__)

    def _mark_back(self) -> None:
        if not self._is_away:
            return
        with self._lock:
            was_away, self._is_away = self._is_away, False
        if was_away:
            log.info("breaker.redis_back")

    def _keep(self, name: str, reply: StorageReply, asked_at_s: float) -> None:
        """Keep the view of a reply, and add the breaker's name to the fleet's if it is new."""
        self.view_cache.keep(reply.view, asked_at_s)
        if reply.rebuilt or name not in self._announced:
            try:
                self.redis.add_name(name)
                self._announced.add(name)
            except RedisError as error:
                self._mark_away(error)


def _accept(view: BreakerState) -> StorageReply:
    return StorageReply(1, 0.0, rebuilt=False, before=view.state, transitioned=False, view=view)

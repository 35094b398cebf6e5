"""
Redis while it answers, this process alone while it does not.

A breaker that is closed need not be asked for each call: what Redis said of it within the last
`MAX_VIEW_AGE_S` is as good, unless a change was heard of since.

After one failure Redis is left alone for a second; then one caller tries again while all others
go on locally. So a frozen Redis costs one socket timeout a second and process (in the first
instant one for each thread that was just asking). When Redis answers, Redis wins: what was
counted locally is forgotten.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable

import structlog
from redis.exceptions import RedisError

from breaker.changes import Changes
from breaker.local_storage import LocalStorage
from breaker.redis_storage import RedisStorage
from breaker.state import BreakerState, Forced, Report, Rules, State, StorageReply

RETRY_S = 1.0
NAMES_S = 1.0
"""How old the names of all breakers may be, where changes are not listened to."""
MAX_VIEW_AGE_S = 0.8
"""How old a view may be to admit by; an operator's hand in Redis is obeyed within a second."""

log = structlog.get_logger("breaker")


class FailoverStorage:
    """
    Ask Redis, or `LocalStorage` during an outage; every `RedisError` counts as one.

    Args:
        redis: The shared breakers.
        tokens: Names the probes this process is running for a breaker, so that an outage does
            not take their leases away.
        clock: Seconds, never stepping back.
        changes: Tells what other processes change; None: Redis is asked for each call.
    """

    def __init__(
        self,
        redis: RedisStorage,
        tokens: Callable[[str], Iterable[str]] = lambda _: (),
        clock: Callable[[], float] = time.monotonic,
        changes: Changes | None = None,
    ) -> None:
        self.redis = redis
        self._tokens = tokens
        self._clock = clock
        self._changes = changes
        self._announced: set[str] = set()
        self._names: frozenset[str] = frozenset()
        self._names_asked_at_s = -math.inf
        # Each with when it was asked for: Redis was in that state then, or later.
        self._views: dict[str, tuple[BreakerState, float]] = {}
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child, where no lock of the parent's may be trusted."""
        self._lock = threading.Lock()
        self._away = False
        self._retry_at_s = 0.0
        self.local = LocalStorage(self._clock)
        if self._changes:
            self._changes.restart()

    def close(self) -> None:
        """Listen to no more changes."""
        if self._changes:
            self._changes.close()

    def admit(self, name: str, rules: Rules, token: str) -> StorageReply:
        """Ask for a call to go out; not Redis, while it is sure to grant it."""
        if view := self._fresh_closed_view(name):
            return _granted(view)
        return self._ask(name, rules, lambda store: store.admit(name, rules, token))

    def record(self, name: str, rules: Rules, report: Report) -> StorageReply:
        """
        Tell how a call ended that Redis admitted; during an outage it counts here.

        A success is told only while there is a run of failures for it to end.
        """
        if (
            report.outcome == "success"
            and not report.retry_after_s
            and (view := self._fresh_closed_view(name))
            and (view.failures, view.generation) == (0, report.generation)
        ):
            return _granted(view)
        return self._ask(name, rules, lambda store: store.record(name, rules, report))

    def record_local(self, name: str, rules: Rules, report: Report) -> StorageReply | None:
        """Tell how a call ended that was admitted here; None if Redis is back and has its own."""
        if not self._away:
            return None
        return self._locally(name, rules, lambda store: store.record(name, rules, report))

    def renew(self, name: str, rules: Rules, tokens: Iterable[str]) -> StorageReply:
        """Let the leases of probes still running begin again."""
        return self._ask(name, rules, lambda store: store.renew(name, rules, tokens))

    def peek(self, name: str, rules: Rules) -> BreakerState:
        """Read how a breaker stands."""
        if self._may_ask():
            asked_at_s = self._clock()
            try:
                view = self.redis.peek(name)
            except RedisError as error:
                self._lost(error)
            else:
                self._found()
                self._keep(view, asked_at_s)
                return view
        self._seed(name, rules)
        return self.local.peek(name)

    def exists(self, name: str) -> bool:
        """
        Tell whether any process has used a breaker of this name.

        While changes are listened to, the names are read once, and each new one is heard of.
        """
        if name in self._announced or name in self._views or self.local.knows(name):
            return True
        since_s = self._changes.last("") if self._changes else None
        if self._changes and since_s is not None:
            if self._changes.heard(name):
                return True
            is_fresh = self._names_asked_at_s > since_s
        else:
            is_fresh = self._clock() - self._names_asked_at_s < NAMES_S
        if not is_fresh and self._may_ask():
            asked_at_s = self._clock()
            try:
                self._names = frozenset(self.redis.names())
            except RedisError as error:
                self._lost(error)
            else:
                self._names_asked_at_s = asked_at_s
                self._found()
        return name in self._names

    def views(self) -> list[BreakerState]:
        """Tell how each breaker stood when this process last heard of it, without asking."""
        views = {name: view for name, (view, _) in self._views.copy().items()}
        if self._away:
            views |= {name: self.local.peek(name) for name in self.local.names()}
        return [views[name] for name in sorted(views)]

    def peek_all(self) -> list[BreakerState]:
        """Read how every known breaker stands; during an outage, `views`."""
        if self._may_ask():
            asked_at_s = self._clock()
            try:
                views = self.redis.peek_all()
            except RedisError as error:
                self._lost(error)
            else:
                self._found()
                for view in views:
                    self._keep(view, asked_at_s)
                return views
        return self.views()

    def force(
        self, name: str, rules: Rules, *, to: State | None = None, forced: Forced | str = ""
    ) -> StorageReply:
        """
        Do an operator's will, for the whole fleet or not at all.

        Raises:
            RedisError: Redis does not answer.
        """
        asked_at_s = self._clock()
        answer = self.redis.force(name, rules, to=to, forced=forced)
        self._heard(name, answer, asked_at_s)
        return answer

    def _fresh_closed_view(self, name: str) -> BreakerState | None:
        """Return how the breaker stood, if it was closed within the last moment, and still is."""
        if self._changes is None or self._away:
            return None
        changed_at_s, seen = self._changes.last(name), self._views.get(name)
        if changed_at_s is None or seen is None:
            return None
        view, asked_at_s = seen
        if not changed_at_s < asked_at_s or self._clock() - asked_at_s > MAX_VIEW_AGE_S:
            return None
        if view.forced:  # Redis is asked, so that the end of an override is seen at once
            return None
        return view if view.admits_all else None

    def _ask(
        self, name: str, rules: Rules, step: Callable[[RedisStorage | LocalStorage], StorageReply]
    ) -> StorageReply:
        if self._may_ask():
            asked_at_s = self._clock()
            try:
                answer = step(self.redis)
            except RedisError as error:
                self._lost(error)
            else:
                self._heard(name, answer, asked_at_s)
                return answer
        return self._locally(name, rules, step)

    def _locally(
        self, name: str, rules: Rules, step: Callable[[LocalStorage], StorageReply]
    ) -> StorageReply:
        self._seed(name, rules)
        return step(self.local)

    def _seed(self, name: str, rules: Rules) -> None:
        seen = self._views.get(name)
        if seen and not self.local.knows(name):
            view, at_s = seen
            self.local.seed(view, self._clock() - at_s, self._tokens(name), rules)

    def _may_ask(self) -> bool:
        if not self._away:
            return True
        with self._lock:
            now = self._clock()
            if now < self._retry_at_s:
                return False
            self._retry_at_s = now + RETRY_S
            return True

    def _lost(self, error: RedisError) -> None:
        with self._lock:
            first, self._away = not self._away, True
            self._retry_at_s = self._clock() + RETRY_S
            if first:
                self.local.clear()
        if first:
            log.warning("breaker.redis_away", error=type(error).__name__)

    def _found(self) -> None:
        if not self._away:
            return
        with self._lock:
            back, self._away = self._away, False
        if back:
            log.info("breaker.redis_back")

    def _keep(self, view: BreakerState, asked_at_s: float) -> None:
        """Keep the newest view: answers may overtake each other on their way."""
        with self._lock:
            seen = self._views.get(view.name)
            if seen is None or (
                (view.generation, view.seq, asked_at_s)
                >= (seen[0].generation, seen[0].seq, seen[1])
            ):
                self._views[view.name] = view, asked_at_s

    def _heard(self, name: str, answer: StorageReply, asked_at_s: float) -> None:
        self._found()
        self._keep(answer.view, asked_at_s)
        if answer.rebuilt or name not in self._announced:
            try:
                self.redis.add_name(name)
                self._announced.add(name)
            except RedisError as error:
                self._lost(error)


def _granted(view: BreakerState) -> StorageReply:
    return StorageReply(1, 0.0, rebuilt=False, before=view.state, transitioned=False, view=view)

"""
The states of breakers as this process last read them from Redis.

Redis need not be asked about a closed breaker for each call. A state that was read within the last
`MAX_VIEW_AGE_S` is good enough, unless a change was published since.
"""

import math
import threading
from collections.abc import Callable, Iterable

from breaker.changes import ChangeListener
from breaker.state import BreakerState

MAX_VIEW_AGE_S = 0.8
"""The oldest view that admits calls. It bounds the time until an operator's change in Redis itself
is obeyed: one second, with the rest for the call to Redis."""
MAX_NAMES_AGE_S = 1.0
"""The oldest list of names that is used where nothing listens to changes."""


class ViewCache:
    """
    Views of breakers, each with the time at which Redis was asked for it.

    Redis was in the state of a view at that time or later.

    Args:
        clock: Seconds, never stepping back.
        changes: Receives what other processes change; None: no view admits a call.
    """

    def __init__(self, clock: Callable[[], float], changes: ChangeListener | None) -> None:
        self._clock = clock
        self._changes = changes
        self._views: dict[str, tuple[BreakerState, float]] = {}
        self.names: frozenset[str] = frozenset()
        """The names of all breakers, when they were last read."""
        self._names_asked_at_s = -math.inf
        self.restart()

    def restart(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may have held it."""
        self._lock = threading.Lock()

    def keep(self, view: BreakerState, asked_at_s: float) -> None:
        """Keep a view unless a newer one is here: replies can overtake each other."""
        with self._lock:
            kept = self._views.get(view.name)
            if kept:
                before, before_at_s = kept
                newest = (before.generation, before.seq, before_at_s)
                if (view.generation, view.seq, asked_at_s) < newest:
                    return
            self._views[view.name] = view, asked_at_s

    def keep_names(self, names: Iterable[str], asked_at_s: float) -> None:
        """Keep the names of all breakers, as read from Redis."""
        self.names = frozenset(names)
        self._names_asked_at_s = asked_at_s

    def get(self, name: str) -> tuple[BreakerState, float] | None:
        """Return the newest view of a breaker, and when it was asked for; None if there is none."""
        return self._views.get(name)

    def all(self) -> dict[str, BreakerState]:
        """Return the newest view of each breaker, by name."""
        return {name: view for name, (view, _) in self._views.copy().items()}

    def fresh_closed(self, name: str) -> BreakerState | None:
        """Return the view of a breaker if it is fresh and admits every call, else None."""
        if self._changes is None:
            return None
        changed_at_s, kept = self._changes.last_change_at_s(name), self._views.get(name)
        if changed_at_s is None or kept is None:
            return None
        view, asked_at_s = kept
        if not changed_at_s < asked_at_s or self._clock() - asked_at_s > MAX_VIEW_AGE_S:
            return None
        if view.forced or not view.admits_all:  # an override's end is to be seen at once
            return None
        return view

    def knows(self, name: str) -> bool | None:
        """Return whether a breaker of this name exists; None if the names have to be read again."""
        if name in self._views:
            return True
        since_s = None
        if self._changes:
            since_s = self._changes.last_change_at_s("")
        if self._changes is None or since_s is None:
            is_fresh = self._clock() - self._names_asked_at_s < MAX_NAMES_AGE_S
        elif self._changes.has_changed(name):
            return True
        else:  # listening began before the names were read, so each new name was received
            is_fresh = self._names_asked_at_s > since_s
        if is_fresh:
            return name in self.names
        return None

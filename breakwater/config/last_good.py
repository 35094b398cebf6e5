"""
What a roles file said last, for as long as it cannot be read.

Editors and tools leave a file half written, empty or missing for a moment. A process that has read
it once keeps what it read: producers go on enqueueing, and running chains and workflows go on. A
process that has not read it yet gets the error.
"""

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from breakwater.errors import ConfigError

T = TypeVar("T")

REMOVAL_GRACE_S = 60.0
"""How long what has gone from the file is still known: the file may be half written."""

_log = logging.getLogger("breakwater")


def stamp(path: Path) -> tuple[int, ...]:
    """Return what differs when the file is another or has changed; empty if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


class LastGood:
    """
    What was read from files: mappings, each with the stamp of the file that it came from.

    Args:
        clock: Seconds, never stepping back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings: dict[tuple[Path, Hashable], _Reading] = {}

    def read(
        self, path: Path, what: Hashable, read: Callable[[], Mapping[str, T] | None]
    ) -> Mapping[str, T] | None:
        """
        Return a part of a file, with those entries that have gone less than REMOVAL_GRACE_S ago.

        Args:
            path: The file; it is read again only when it has changed.
            what: The part.
            read: Reads it; None where the file has no such part.

        Raises:
            ConfigError: The file cannot be read, and nothing was read from it before.
        """
        now, known = stamp(path), self._readings.get((path, what))
        if known is None or known.stamp != now:
            known = self._readings[path, what] = self._again(known, now, read)
        if not known.gone:
            return known.found
        since = self._clock() - REMOVAL_GRACE_S
        gone = {name: value for name, (value, at) in known.gone.items() if at > since}
        return {**gone, **(known.found or {})} if gone else known.found

    def has(self, path: Path) -> bool:
        """Tell whether anything was read from this file."""
        return any(known == path for known, _ in list(self._readings))

    def _again(
        self, before: "_Reading | None", now: tuple[int, ...], read: Callable[[], Any]
    ) -> "_Reading":
        try:
            found = read()
        except ConfigError as fault:
            if before is None:
                raise
            _log.warning("the roles file is not read, the last good one is kept: %s", fault)
            return replace(before, stamp=now)
        at = self._clock()
        had = (before and before.found) or {}
        left = {name: (value, at) for name, value in had.items() if name not in (found or {})}
        return _Reading(now, found, {**(before.gone if before else {}), **left})


@dataclass(frozen=True, slots=True)
class _Reading:
    stamp: tuple[int, ...]
    found: Mapping[str, Any] | None
    gone: Mapping[str, tuple[Any, float]]
    """What was found before and is not any more, and since when."""

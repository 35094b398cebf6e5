"""
Keep what was last read from a roles file while the file cannot be read.

Editors and tools leave a file half written, empty or missing for a moment. A process that has read
the file once keeps what it read: producers still enqueue, and running chains and workflows go on. A
process that has not read it yet gets the error.
"""

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

from breakwater.errors import ConfigError

T = TypeVar("T")
Entries = Mapping[str, object]

REMOVAL_GRACE_S = 60.0
"""The time for which an entry that is gone from the file stays: the file may be half written."""

_log = logging.getLogger("breakwater")


def stamp(path: Path) -> tuple[int, ...]:
    """Return a cache key that changes whenever the file does; empty if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


@dataclass(frozen=True, slots=True)
class _Reading:
    """One part of a file, the stamp of the file, and entries that are gone, with the time."""

    stamp: tuple[int, ...]
    entries: Entries | None
    removed: Mapping[str, tuple[object, float]] = field(default_factory=dict)


class LastGood:
    """
    Caches the parts of files; each part is a mapping.

    Args:
        clock: Seconds, never stepping back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings: dict[tuple[Path, Hashable], _Reading] = {}

    def read(
        self, path: Path, part: Hashable, read: Callable[[], Mapping[str, T] | None]
    ) -> Mapping[str, T] | None:
        """
        Return a part of a file, with the entries that are gone for less than REMOVAL_GRACE_S.

        Args:
            path: The file; it is read again only after it has changed.
            part: Identifies the part.
            read: Reads the part; returns None if the file has no such part.

        Raises:
            ConfigError: The file cannot be read, and was never read before.
        """
        now, reading = stamp(path), self._readings.get((path, part))
        if reading is None or reading.stamp != now:
            reading = self._read_again(reading, now, read)
            self._readings[path, part] = reading
        return cast("Mapping[str, T] | None", self._with_removed(reading))

    def has(self, path: Path) -> bool:
        """Return whether any part of this file was read."""
        return any(known == path for known, _ in list(self._readings))

    def _with_removed(self, reading: _Reading) -> Entries | None:
        if not reading.removed:
            return reading.entries
        since = self._clock() - REMOVAL_GRACE_S
        kept = {name: value for name, (value, at) in reading.removed.items() if at > since}
        if not kept:
            return reading.entries
        return {**kept, **(reading.entries or {})}

    def _read_again(
        self, before: _Reading | None, now: tuple[int, ...], read: Callable[[], Entries | None]
    ) -> _Reading:
        try:
            entries = read()
        except ConfigError as fault:
            if before is None:
                raise
            _log.warning("the roles file cannot be read, the last good one stays: %s", fault)
            return replace(before, stamp=now)
        if before is None:
            return _Reading(now, entries)
        at, names = self._clock(), entries or {}
        gone = {
            name: (value, at) for name, value in (before.entries or {}).items() if name not in names
        }
        return _Reading(now, entries, {**before.removed, **gone})

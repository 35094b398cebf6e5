"""Hosts that are wrong about the time, and clocks that jump while a process runs."""

import importlib.util
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.fleet import Fleet

LIBRARY = next(
    file
    for folder in importlib.util.find_spec("libfaketime").submodule_search_locations  # type: ignore[union-attr]
    for file in Path(folder).rglob("libfaketime.so.1")
)


class WrongClock:
    """
    A wall clock that is off by so many seconds, for every process that is given `environ`.

    The monotonic clock stays right, as on a host whose time is set.
    """

    def __init__(self, off_s: int = 0) -> None:
        self._file = Path(tempfile.mkstemp(prefix="clock-")[1])
        self.set(off_s)

    def set(self, off_s: int) -> None:
        """Let it jump; the processes see it within the next reading."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{off_s:+d}\n")
        new.rename(self._file)

    def environ(self) -> Mapping[str, str]:
        """Return what a process needs to live by it."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def close(self) -> None:
        """Remove its file."""
        self._file.unlink(missing_ok=True)


def start_by(fleet: Fleet, clock: WrongClock, pool: str = "threads", concurrency: int = 8) -> None:
    """Start one worker that lives by this clock."""
    right = fleet.environ
    fleet.environ = {**right, **clock.environ()}
    try:
        fleet.start(1, pool, concurrency)
    finally:
        fleet.environ = right


def server_environ(clock: WrongClock) -> Mapping[str, str]:
    """Return a server's environment."""
    return {**os.environ, **clock.environ()}

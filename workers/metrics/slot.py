"""
Where the processes of one host leave their counts: files that a scrape adds up.

Every worker takes a slot, a number that no other living one has, by a lock that ends with its
process. Its counts go on in the files of whoever had the slot before: the folder has as many files
as workers ever ran at once, however often they start, and no sum falls. When nobody holds a slot,
the files go.
"""

import fcntl
import itertools
import os
import tempfile
from pathlib import Path
from typing import IO

from billiard import current_process
from celery import signals

from breakwater.errors import ConfigError

KINDS = ("counter", "histogram")
"""What prometheus_client has files for: `counter_NAME.db`."""
RESERVED_BYTES = 512 * 1024
"""Of each file, on the disk from the start; about 2,000 series. They are written as memory, and a
disk that is full would end the process by SIGBUS."""


class Slot:
    """
    A worker's place in the folder; take one with `claim`.

    Args:
        lock: Held as long as the worker or a child of its prefork lives.
    """

    def __init__(self, folder: Path, number: int, lock: IO[str]) -> None:
        self.folder = folder
        self._number = number
        self._lock = lock
        self._take(str(number))
        signals.worker_process_init.connect(self._forked)

    def name(self) -> str:
        """Name this process's files; a child that takes another's place goes on in its files."""
        return self._name

    def _forked(self, **_: object) -> None:
        index = getattr(current_process(), "index", None)
        if index is not None:  # `--pool solo` sends the signal too, in the worker's own process
            self._take(f"{self._number}-{index}")

    def _take(self, name: str) -> None:
        self._name = name
        for kind in KINDS:
            with (self.folder / f"{kind}_{name}.db").open("ab") as file:
                if hasattr(os, "posix_fallocate"):  # not on a Mac
                    os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)


def folder_for(port: int) -> Path:
    """Return PROMETHEUS_MULTIPROC_DIR; or a folder of this user's in the temporary one, by port."""
    if given := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return Path(given)
    return Path(tempfile.gettempdir()) / f"breakwater-{os.getuid()}" / f"metrics-{port}"


def claim(folder: Path) -> Slot:
    """
    Take the first slot that is free.

    Raises:
        ConfigError: The folder cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(None, "it is another user's")
        with (folder / "slots.lock").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            return _first_free(folder)
    except OSError as error:
        fault = f"PROMETHEUS_MULTIPROC_DIR: {folder} cannot be used: {error.strerror}"
        raise ConfigError(fault, {"faults": [fault]}) from None


def _first_free(folder: Path) -> Slot:
    there = [_try(path) for path in sorted(folder.glob("slot-*.lock"))]
    if not any(lock is None for lock in there):
        for path in (path for kind in KINDS for path in folder.glob(f"{kind}_*.db")):
            path.unlink()
    for lock in there:
        if lock:
            lock.close()
    for number in itertools.count():
        if lock := _try(folder / f"slot-{number}.lock"):
            return Slot(folder, number, lock)
    raise AssertionError("numbers do not end")


def _try(path: Path) -> IO[str] | None:
    """Lock a file; None if another process has."""
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock

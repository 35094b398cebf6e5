"""
Keep the counts of one host's processes in files that a scrape adds up.

Every worker claims a slot, a number that no other living worker has, by a lock that ends with its
process. It continues the counts in the files of the slot's last owner. So the folder has as many
files as workers ever ran at once, however often they start, and no sum falls. When no slot is
taken, the files are deleted.
"""

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from billiard import current_process
from celery import signals

from breakwater.errors import ConfigError

KINDS = ("counter", "histogram")
"""The kinds of files that prometheus_client writes: `counter_NAME.db`."""
RESERVED_BYTES = 512 * 1024
"""Reserved on the disk for each file, enough for about 2,000 series. The files are mapped into
memory, and writing one on a full disk would end the process by SIGBUS."""


class Slot:
    """
    A worker's files in the folder; made by `claim`.

    Args:
        lock: Held as long as the worker or a child of its prefork pool lives.
    """

    def __init__(self, folder: Path, number: int, lock: IO[str]) -> None:
        self.folder = folder
        self._number = number
        self._lock = lock
        self._open_files(str(number))
        signals.worker_process_init.connect(self._use_files_of_child)

    def name(self) -> str:
        """Name this process's files; a child that replaces another one continues its files."""
        return self._name

    def _use_files_of_child(self, **_: object) -> None:
        index = getattr(current_process(), "index", None)
        if index is not None:  # `--pool solo` sends the signal too, in the worker's own process
            self._open_files(f"{self._number}-{index}")

    def _open_files(self, name: str) -> None:
        self._name = name
        for kind in KINDS:
            with (self.folder / f"{kind}_{name}.db").open("ab") as file:
                if hasattr(os, "posix_fallocate"):  # macOS has none
                    os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)


def folder_for(port: int) -> Path:
    """Return PROMETHEUS_MULTIPROC_DIR; by default this user's temporary folder for the port."""
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return Path(folder)
    return Path(tempfile.gettempdir()) / f"breakwater-{os.getuid()}" / f"metrics-{port}"


def claim(folder: Path) -> Slot:
    """
    Claim the first free slot.

    Raises:
        ConfigError: The folder cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(None, "it belongs to another user")
        with (folder / "slots.lock").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            return _claim_first_free(folder)
    except OSError as error:
        fault = f"PROMETHEUS_MULTIPROC_DIR: {folder} cannot be used: {error.strerror}"
        raise ConfigError(fault, {"faults": [fault]}) from None


def _claim_first_free(folder: Path) -> Slot:
    locks = [_try_lock(path) for path in sorted(folder.glob("slot-*.lock"))]
    if not any(lock is None for lock in locks):
        for path in _count_files(folder):
            path.unlink()
    for lock in locks:
        if lock:
            lock.close()
    for number in itertools.count():
        if lock := _try_lock(folder / f"slot-{number}.lock"):
            return Slot(folder, number, lock)
    raise AssertionError("itertools.count() does not end")


def _count_files(folder: Path) -> Iterator[Path]:
    for kind in KINDS:
        yield from folder.glob(f"{kind}_*.db")


def _try_lock(path: Path) -> IO[str] | None:
    """Lock a file; return None if another process holds the lock."""
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock

"""
Paid answers that Redis does not take now, on disk, in case their worker dies meanwhile.

A worker whose result is not taken retries, with the result in its memory. The file is for the next
worker on this host. So a result may be settled twice, and only the first one counts. There are at
most as many files as tasks that run at once. The files contain answers in the clear, as Redis does;
only the worker's user can read them.
"""

import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import structlog
from redis.exceptions import RedisError

from breakwater.messaging.settlement import Settlement
from breakwater.redis.connection import is_transient
from tasks.spool_file import folder, write

SAFE_OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK
MAX_WRITING_S = 60.0
"""A file that still has its temporary name is written for this long at most."""

_log = structlog.get_logger("breakwater")


def keep(settlement: Settlement) -> Path | None:
    """Write a settlement to disk; return its file, None if the disk does not take it either."""
    path = folder() / f"{os.getpid()}-{time.monotonic_ns()}.json"
    try:
        write(path, json.dumps(asdict(settlement)))
    except OSError as error:
        _log.error("spool.refused", folder=str(path.parent), error=str(error.strerror))
        return None
    return path


def replay(settle: Callable[[Settlement], object]) -> int:
    """
    Settle the results of earlier workers on this host; return how many there were.

    The worker may still live: the first settlement counts. A file that cannot be read is renamed,
    so that it does not block the others.

    Raises:
        RedisError: Redis is still unavailable; the remaining files stay.
    """
    number = 0
    # A worker may have died before it renamed its file; a whole file counts all the same.
    for path in sorted([*folder().glob("*.json"), *folder().glob("*.part")]):
        try:
            settle(_read(path))
        except FileNotFoundError:  # its worker, or another one, was faster
            continue
        except (OSError, ValueError, TypeError, RecursionError) as error:
            _put_aside(path, error)
            continue
        except RedisError as error:
            if is_transient(error):
                raise
            _put_aside(path, error)
            continue
        path.unlink(missing_ok=True)
        number += 1
    return number


def _read(path: Path) -> Settlement:
    """
    Read a settlement.

    Raises:
        FileNotFoundError: The file no longer exists.
        OSError, ValueError: It is not a file of this worker's user, or not whole.
    """
    # Do not wait for the writer of a pipe, and do not follow a link to another file.
    with open(path, opener=lambda p, flags: os.open(p, flags | SAFE_OPEN_FLAGS)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid():
            raise ValueError("it is not a file of this user's")
        fields = json.load(file)
    if not isinstance(fields, dict) or not fields.keys() >= {"task_id", "meta"}:
        raise ValueError("it is not a settlement")
    return Settlement(**fields)


def _put_aside(path: Path, error: Exception) -> None:
    """Rename a file that cannot be settled, unless it may still be written."""
    with suppress(OSError):
        if path.suffix == ".part" and time.time() - path.lstat().st_mtime < MAX_WRITING_S:
            return
        path.rename(path.with_suffix(".bad"))
        _log.error(
            "spool.unreadable", file=str(path.with_suffix(".bad")), error=type(error).__name__
        )

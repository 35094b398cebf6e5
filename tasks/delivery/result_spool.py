"""
Paid answers that Redis cannot take now, on disk, for the case that their worker dies meanwhile.

A worker whose result is not taken keeps trying, with the result in its memory; its file is there
for the next worker on this host. Results may be settled twice by this, which is once: the first
counts. There are at most as many files as tasks can run at once. The files hold answers in the
clear (as Redis does), readable by the worker's user alone.
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
"""A file without its name is being written for this long at most."""

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
    Settle what earlier workers of this host could not; return how many answers there were.

    Any worker may have left them, also one that lives: the first settlement counts. What cannot be
    read is put aside under another name, so that it is in nobody's way.

    Raises:
        RedisError: Redis is away still; what is left stays.
    """
    number = 0
    # A worker may have died before its file had its name; what is whole counts all the same.
    for path in sorted([*folder().glob("*.json"), *folder().glob("*.part")]):
        try:
            settle(_read(path))
        except FileNotFoundError:  # its worker was quicker, or another one
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
        FileNotFoundError: It is not there any more.
        OSError, ValueError: It is no file of ours, or not whole.
    """
    # Neither wait for what writes to a pipe, nor follow a link to somebody else's file.
    with open(path, opener=lambda p, flags: os.open(p, flags | SAFE_OPEN_FLAGS)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid():
            raise ValueError("it is not a file of this user's")
        fields = json.load(file)
    if not isinstance(fields, dict) or not fields.keys() >= {"task_id", "meta"}:
        raise ValueError("it is not a settlement")
    return Settlement(**fields)


def _put_aside(path: Path, error: Exception) -> None:
    """Rename what cannot be settled; a file that is just being written is left alone."""
    with suppress(OSError):
        if path.suffix == ".part" and time.time() - path.lstat().st_mtime < MAX_WRITING_S:
            return
        path.rename(path.with_suffix(".bad"))
        _log.error(
            "spool.unreadable", file=str(path.with_suffix(".bad")), error=type(error).__name__
        )

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
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog
from redis.exceptions import RedisError

from breakwater.redis.connection import is_transient, shown
from breakwater.redis.prefix import VARIABLE as PREFIX

NOT_ELSEWHERE = os.O_NOFOLLOW | os.O_NONBLOCK
WRITTEN_S = 60.0
"""A file without its name is being written for this long at most."""

_log = structlog.get_logger("breakwater")


def folder() -> Path:
    """
    Return where the files are.

    SPOOL_DIR; or a folder of this user's in the temporary one, by Redis and prefix: what one fleet
    could not settle shall not be settled in another's.
    """
    if given := os.environ.get("SPOOL_DIR"):
        return Path(given)
    prefix = os.environ.get(PREFIX, "")
    fleet = sha256(f"{shown()}{prefix}".encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"breakwater-{os.getuid()}" / fleet


def keep(task_id: str, settlement: dict[str, Any]) -> Path | None:
    """Write a settlement down; None if the disk does not take it either."""
    path = folder() / f"{os.getpid()}-{time.monotonic_ns()}.json"
    unfinished = path.with_suffix(".part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(unfinished, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            json.dump({"task_id": task_id, **settlement}, file)
            file.flush()
            os.fsync(file.fileno())  # or a host that crashes has its name without its content
        unfinished.rename(path)
    except OSError as error:
        _log.error("spool.refused", folder=str(path.parent), error=str(error.strerror))
        with suppress(OSError):  # of a full disk every byte counts
            unfinished.unlink(missing_ok=True)
        return None
    return path


def replay(settle: Callable[[dict[str, Any]], object]) -> int:
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


def _read(path: Path) -> dict[str, Any]:
    """
    Read a settlement.

    Raises:
        FileNotFoundError: It is not there any more.
        OSError, ValueError: It is no file of ours, or not whole.
    """
    # Neither wait for what writes to a pipe, nor follow a link to somebody else's file.
    with open(path, opener=lambda p, flags: os.open(p, flags | NOT_ELSEWHERE)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid():
            raise ValueError("it is not a file of this user's")
        settlement = json.load(file)
    if not isinstance(settlement, dict) or not settlement.keys() >= {"task_id", "meta"}:
        raise ValueError("it is not a settlement")
    return settlement


def _put_aside(path: Path, error: Exception) -> None:
    """Rename what cannot be settled; a file that is just being written is left alone."""
    with suppress(OSError):
        if path.suffix == ".part" and time.time() - path.lstat().st_mtime < WRITTEN_S:
            return
        path.rename(path.with_suffix(".bad"))
        _log.error(
            "spool.unreadable", file=str(path.with_suffix(".bad")), error=type(error).__name__
        )

"""
Paid answers that Redis cannot take now, on disk, for the case that their worker dies meanwhile.

A worker whose result is not taken keeps trying, with the result in its memory; its file is there
for the next worker on this host. Results may be settled twice by this, which is once: the first
counts. There are at most as many files as tasks can run at once. The files hold answers in the
clear (as Redis does), readable by the worker's user alone.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog

from breaker.prefix import VARIABLE as PREFIX
from tasks.connection import shown

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
        unfinished.rename(path)
    except OSError as error:
        _log.error("spool.refused", folder=str(path.parent), error=str(error.strerror))
        return None
    return path


def replay(settle: Callable[[dict[str, Any]], object]) -> int:
    """
    Settle what earlier workers of this host could not; return how many files there were.

    Raises:
        RedisError: Redis is away still; what is left stays.
    """
    number = 0
    for path in sorted(folder().glob("*.json")):
        try:
            settlement = json.loads(path.read_text())
        except FileNotFoundError:  # its worker was quicker
            continue
        settle(settlement)
        path.unlink(missing_ok=True)
        number += 1
    return number

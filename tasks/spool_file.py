"""
Files that a worker writes while Redis does not take what it has: each is whole, or does not exist.

Only the worker's user can read the files. `SPOOL_DIR` sets their folder.
"""

import os
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from breakwater.redis.connection import shown
from breakwater.redis.prefix import VARIABLE as PREFIX


def folder() -> Path:
    """
    Return the folder of the files.

    It is SPOOL_DIR. By default it is a folder of this user in the temporary one, named by Redis'
    address and the prefix: another fleet must not settle what this fleet could not.
    """
    if path := os.environ.get("SPOOL_DIR"):
        return Path(path)
    prefix = os.environ.get(PREFIX, "")
    fleet = sha256(f"{shown()}{prefix}".encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"breakwater-{os.getuid()}" / fleet


def write(path: Path, text: str) -> None:
    """
    Write a file under another name, then rename it.

    Raises:
        OSError: The disk does not take it. Nothing is left behind: of a full disk each byte counts.
    """
    unfinished = path.with_suffix(".part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(unfinished, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a host that crashes keeps the name without the content
        unfinished.rename(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise

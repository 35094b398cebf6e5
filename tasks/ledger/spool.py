"""
Rows that neither Redis nor the database takes, on disk: JSON Lines, in SPOOL_DIR.

The files are readable by the worker's user alone. Every worker of this host hands them on when it
can; `breakwater ledger import` brings them to the database without Redis.
"""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from tasks.delivery.spool import folder

_log = structlog.get_logger("breakwater")


def keep(rows: Iterable[str]) -> None:
    """Write rows down, in a file of their own: it is whole, or it is not there."""
    lines = "".join(f"{row}\n" for row in rows)
    if not lines:
        return
    path = folder() / f"ledger-{os.getpid()}-{time.monotonic_ns()}.jsonl"
    unfinished = path.with_suffix(".part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(unfinished, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(lines)
        unfinished.rename(path)
    except OSError as error:
        _log.error("ledger.rows_lost", rows=lines.count("\n"), error=str(error.strerror))


def files() -> list[Path]:
    """Return the files there are."""
    return sorted(folder().glob("ledger-*.jsonl"))


def rows_in(path: Path) -> Iterator[str]:
    """Read a file's rows, one at a time."""
    with path.open() as file:
        yield from (line.strip() for line in file if line.strip())

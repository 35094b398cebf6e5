"""
Rows on disk, for the time in which Redis does not take them: files of JSON Lines in SPOOL_DIR.

Only the worker's user can read the files. Every worker of this host sends them to Redis as soon as
it can; `breakwater ledger import` writes them to the database without Redis.
"""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from tasks.spool_file import folder, write

_log = structlog.get_logger("breakwater")


def keep(rows: Iterable[str]) -> None:
    """Write rows to a file of their own; log how many are lost if the disk does not take them."""
    lines = "".join(f"{row}\n" for row in rows)
    if not lines:
        return
    path = folder() / f"ledger-{os.getpid()}-{time.monotonic_ns()}.jsonl"
    try:
        write(path, lines)
    except OSError as error:
        _log.error("ledger.rows_lost", rows=lines.count("\n"), error=str(error.strerror))


def files() -> list[Path]:
    """Return the files, sorted by name."""
    return sorted(folder().glob("ledger-*.jsonl"))


def rows_in(path: Path) -> Iterator[str]:
    """Read the rows of a file, one at a time."""
    with path.open() as file:
        yield from (line.strip() for line in file if line.strip())

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
    """Return the files there are."""
    return sorted(folder().glob("ledger-*.jsonl"))


def rows_in(path: Path) -> Iterator[str]:
    """Read a file's rows, one at a time."""
    with path.open() as file:
        yield from (line.strip() for line in file if line.strip())

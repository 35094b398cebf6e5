"""The name of a process, as Redis, results and traces show it."""

import os
import socket
from functools import cache


def process_name() -> str:
    """Return `host:pid` of this process; a fork has its own name."""
    return _name_of(os.getpid())


@cache
def _name_of(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"

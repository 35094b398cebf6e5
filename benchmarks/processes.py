"""What processes use, read from /proc while they run (Linux alone has it)."""

import os
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
MB = 1024


def family(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    members = [pid]
    for member in members:
        for thread in Path(f"/proc/{member}/task").glob("*/children"):
            members += map(int, _text(thread).split())
    return members


def cpu_s(pid: int) -> float:
    """Return the CPU that a process has used, its threads and its children included."""
    return sum(map(_cpu_s, family(pid)))


def _cpu_s(pid: int) -> float:
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_A_SECOND


def memory_mb(pid: int) -> tuple[float, float]:
    """Return what a process and its children hold: resident, and with shared pages shared out."""
    resident = sum(_kb(member, "status", "VmRSS") for member in family(pid))
    shared_out = sum(_kb(member, "smaps_rollup", "Pss") for member in family(pid))
    return resident / MB, shared_out / MB


def _kb(pid: int, file: str, field: str) -> int:
    for line in _text(Path(f"/proc/{pid}/{file}")).splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def _text(path: Path) -> str:
    """Return what stands in a file of /proc; nothing once its process is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def idle_s() -> float:
    """Return how long the machine's cores were idle, added up."""
    return int(Path("/proc/stat").read_text().split(None, 6)[4]) / TICKS_A_SECOND

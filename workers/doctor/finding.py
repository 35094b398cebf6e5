"""One line of the report of `breakwater doctor`, and what to do about it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Literal["ok", "warning", "fault"]
    about: str
    what: str
    next_step: str = ""


def ok(about: str, message: str, next_step: str = "") -> Finding:
    """Report something that works."""
    return Finding("ok", about, message, next_step)


def warning(about: str, message: str, next_step: str) -> Finding:
    """Report something that may do harm."""
    return Finding("warning", about, message, next_step)


def fault(about: str, message: str, next_step: str) -> Finding:
    """Report something that must be corrected."""
    return Finding("fault", about, message, next_step)

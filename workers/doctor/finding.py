"""What `breakwater doctor` says: one line, and what to do about it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Literal["ok", "warning", "fault"]
    about: str
    what: str
    next_step: str = ""

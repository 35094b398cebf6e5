"""How times are said on the command line."""

import re
import time
from datetime import UTC, datetime

import typer

UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def age_s(text: str) -> float:
    """Read an age, such as 90s, 30m, 2h or 7d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is no age, such as 90s, 30m, 2h or 7d")
    return float(found[1]) * UNITS_S[found[2]]


def moment_ms(text: str) -> int:
    """Read a moment: an age before now, or a date with or without a time (UTC)."""
    if re.fullmatch(r"[\d.]+[smhd]", text):
        return round((time.time() - age_s(text)) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time, such as 24h, 7d, 2026-11-21 or 2026-11-21T08:00"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def said(ms: int) -> str:
    """Say a moment, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")

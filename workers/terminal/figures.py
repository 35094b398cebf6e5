"""Read and format ages, moments, counts and amounts for the commands."""

import re
import time
from datetime import UTC, datetime
from decimal import Decimal

import typer

SECONDS_PER_UNIT = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
AGE_UNITS = (("d", 86400), ("h", 3600), ("m", 60))
SIZE_UNITS = ((10**9, "G"), (10**6, "M"), (1000, "k"))


def seconds(text: str) -> float:
    """Read an age such as 90s, 30m, 2h or 7d; return seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not match:
        raise typer.BadParameter(f"{text!r} is not a valid age, such as 90s, 30m, 2h or 7d")
    return float(match[1]) * SECONDS_PER_UNIT[match[2]]


def moment_ms(text: str) -> int:
    """Read a moment: an age before now, or a date with or without a time (UTC)."""
    if re.fullmatch(r"[\d.]+[smhd]", text):
        return round((time.time() - seconds(text)) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a valid time, such as 24h, 7d, 2026-11-21 or 2026-11-21T08:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def at_utc(at_ms: int) -> str:
    """Format a moment, such as 2026-11-21 08:00:00."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms / 1000))


def age(age_s: float) -> str:
    """Format an age in the largest unit of which it has two; 0 s if the clock was set back."""
    age_s = max(age_s, 0)
    for name, unit_s in AGE_UNITS:
        if age_s >= 2 * unit_s:
            return f"{age_s / unit_s:.0f} {name}"
    return f"{age_s:.0f} s"


def number_of(number: int, noun: str) -> str:
    """Format a count with its noun: 1 worker, 2 workers."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}s"


def short(number: int) -> str:
    """Format a number in a few digits: 12345 is 12.3k."""
    for size, unit in SIZE_UNITS:
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def dollars(usd: Decimal) -> str:
    """Format an amount: to the cent, or with four decimals if it is less than a dollar."""
    if usd and usd < 1:
        return f"{usd:.4f}"
    return f"{usd:.2f}"

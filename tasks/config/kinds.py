"""What one value may be: the check, and the words a message says it in."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One kind of value.

    `allowed` completes the sentence "5 is not …"; a `textual` kind takes what a variable held as
    text, also if it reads like a number; a `secret` one is never shown in a message.
    """

    allowed: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value
    textual: bool = False
    secret: bool = False


def whole(low: int, high: int) -> Kind:
    """Return the kind of the whole numbers from `low` to `high`."""
    return Kind(
        f"a whole number from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def number(low: float, high: float) -> Kind:
    """Return the kind of the numbers from `low` to `high`, given as float."""
    return Kind(f"a number from {low:g} to {high:g}", _between(low, high), float)


def seconds(high: float) -> Kind:
    """Return the kind of a duration: more than nothing, up to `high` seconds, given as float."""
    low = 0.001
    return Kind(f"a number of seconds from {low:g} to {high:.0f}", _between(low, high), float)


def one_of(*choices: str) -> Kind:
    """Return the kind of a few words."""
    return Kind(f"one of {', '.join(choices)}", lambda value: value in choices, textual=True)


def text(allowed: str, accepts: Callable[[str], bool], *, secret: bool = False) -> Kind:
    """Return the kind of a text that is not blank and satisfies `accepts`."""
    return Kind(
        allowed,
        lambda value: isinstance(value, str) and bool(value.strip()) and accepts(value),
        textual=True,
        secret=secret,
    )


FLAG = Kind("true or false", lambda value: type(value) is bool)


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: (
        type(value) in {int, float} and math.isfinite(value) and low <= value <= high
    )

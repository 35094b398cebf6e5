"""What a value may be: the check, and the words a message says it in."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from breakwater.errors import nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What can name a role, a provider, a workflow or a run."""
_PACING = {"limits", "strategy", "budget"}


@dataclass(frozen=True, slots=True)
class ValueType:
    """
    One kind of value.

    `allowed` completes the sentence "5 is not …"; a `textual` kind takes what a variable held as
    text, also if it reads like a number; a `secret` one is never shown in a message.
    """

    allowed: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value
    choices: tuple[str, ...] = ()
    textual: bool = False
    secret: bool = False


FLAG = ValueType("true or false", lambda value: type(value) is bool)


def whole(low: int, high: int) -> ValueType:
    """Return the kind of the whole numbers from `low` to `high`."""
    return ValueType(
        f"a whole number from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def number(low: float, high: float, unit: str = "") -> ValueType:
    """Return the kind of the numbers from `low` to `high`, given as float."""
    return ValueType(
        f"a number {unit}from {low:.9g} to {high:.9g}",
        lambda value: type(value) in {int, float} and low <= value <= high,
        float,
    )


def seconds(high: float) -> ValueType:
    """Return the kind of a duration: more than nothing, up to `high` seconds, given as float."""
    return number(0.001, high, "of seconds ")


def one_of(*choices: str) -> ValueType:
    """Return the kind of a few words."""
    return ValueType(
        f"one of {', '.join(choices)}",
        lambda value: isinstance(value, str) and value in choices,
        choices=choices,
        textual=True,
    )


def some_of(*choices: str) -> ValueType:
    """Return the kind of a list of some of a few words, or none, given as a frozen set."""
    return ValueType(
        f"a list of {' and '.join(choices)}, perhaps empty",
        lambda value: (
            isinstance(value, list)
            and all(isinstance(item, str) and item in choices for item in value)
            and len(set(value)) == len(value)
        ),
        frozenset,
    )


def text(allowed: str, accepts: Callable[[str], bool], *, secret: bool = False) -> ValueType:
    """Return the kind of a text that is not blank and satisfies `accepts`."""
    return ValueType(
        allowed,
        lambda value: isinstance(value, str) and bool(value.strip()) and accepts(value),
        textual=True,
        secret=secret,
    )


def unknown_key(key: str, known: Collection[str]) -> str:
    """Say that there is no such key, and which there are."""
    if key in _PACING:
        return f"{key!r} is kept for pacing, which does not work yet; remove it until it does"
    return f"unknown key {key[:60]!r}; allowed are {', '.join(known)}{nearest(key[:60], known)}"

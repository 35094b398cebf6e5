"""Types of values in options and files: a check, and the words that messages use for it."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from breakwater.errors import nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Valid names of roles, providers, workflows and runs."""
_PACING = {"limits", "strategy", "budget"}

Value = Any
"""A value that YAML or JSON holds; `accepts` checks its type."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """
    One type of value.

    `allowed` completes the sentence "5 is not …". A `textual` type takes the value of an
    environment variable as text, even if it looks like a number. A message never contains the
    value of a `secret` type.
    """

    allowed: str
    accepts: Callable[[Value], bool]
    convert: Callable[[Value], Value] = lambda value: value
    choices: tuple[str, ...] = ()
    textual: bool = False
    secret: bool = False


FLAG = ValueType("true or false", lambda value: type(value) is bool)


def whole(low: int, high: int) -> ValueType:
    """Return the type of the whole numbers from `low` to `high`."""
    return ValueType(
        f"a whole number from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def number(low: float, high: float, unit: str = "") -> ValueType:
    """Return the type of the numbers from `low` to `high`; it converts to float."""
    return ValueType(
        f"a number {unit}from {low:.9g} to {high:.9g}",
        lambda value: type(value) in {int, float} and low <= value <= high,
        float,
    )


def seconds(high: float) -> ValueType:
    """Return the type of a duration: more than 0, up to `high` seconds; it converts to float."""
    return number(0.001, high, "of seconds ")


def one_of(*choices: str) -> ValueType:
    """Return the type of a fixed set of words."""
    return ValueType(
        f"one of {', '.join(choices)}",
        lambda value: isinstance(value, str) and value in choices,
        choices=choices,
        textual=True,
    )


def some_of(*choices: str) -> ValueType:
    """Return the type of a list of some of these words; it converts to a frozen set."""
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
    """Return the type of a text that is not blank and satisfies `accepts`."""
    return ValueType(
        allowed,
        lambda value: isinstance(value, str) and bool(value.strip()) and accepts(value),
        textual=True,
        secret=secret,
    )


def unknown_key(key: str, known: Collection[str]) -> str:
    """Return the message for an unknown key; it lists the allowed keys."""
    if key in _PACING:
        return f"{key!r} is kept for pacing, which does not work yet; remove it until it does"
    return f"unknown key {key[:60]!r}; allowed are {', '.join(known)}{nearest(key[:60], known)}"

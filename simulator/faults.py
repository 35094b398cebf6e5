"""
Faults: what goes wrong, how and when, as data of the control API, and the clock that applies them.

A label's faults are a list; each call meets the first one that is due.
"""

import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from email.utils import formatdate
from typing import Any, Self

from simulator.wires.base import ERROR_KINDS, STATUS_KINDS

BODIES = {
    "garbage": ("application/json", b'<html><body>upstream said "no"'),
    "html": ("text/html", b"<html><body><h1>Please wait</h1></body></html>"),
    "wrong_shape": ("application/json", b'{"ok":true}'),
    "empty": ("application/json", b""),
}
"""Bodies with status 200 that are sent instead of an answer."""
DELIVERIES = {
    "hang": "accept the call and never answer",
    "trickle": "send one byte each `interval_s`",
    "reset": "read the call, then reset the connection",
    "reset_early": "reset the connection before the body is read",
    "reset_midway": "reset the connection in the middle of the answer",
    "truncate": "close in the middle of the answer, before its content length",
    "cut": "end the answer cleanly in its middle: half a JSON text, or a stream without its end",
    "stall": "send half of a stream's events, then nothing, with the connection open",
    "stall_pings": "the same, with a keep-alive every 50 ms",
    "stream_error": "end a stream with an error event; a plain call gets the error as its answer",
}
ANSWERS = frozenset({"refusal", "content_filter", "length", "no_text"})
"""Whole answers that end in an unwanted way, or have no text."""
KINDS = ERROR_KINDS | BODIES.keys() | DELIVERIES.keys() | ANSWERS
WHOLE = {"status", "seed", "first", "per_minute"}
RETRY_FORMS = ("seconds", "fraction", "date", "ms", "retry_info", "none")
MINUTE_S = 60.0


class BadOrder(ValueError):  # noqa: N818 - the command is wrong, not this program
    """A fault or setting does not exist, or has a wrong value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    One fault. `kind` or `status` name it; the other fields say how and when it strikes.

    A fault with a latency alone is a slow, good answer.
    """

    kind: str | None = None
    """One of `KINDS`; None: the kind of `status`."""
    status: int | None = None
    """None: the vendor's status for `kind`."""
    retry_after: float | None = None
    """Seconds, sent in the vendor's form, or in `retry_after_form`."""
    retry_after_form: str | None = None
    latency: float | str | None = None
    """The time before the answer: seconds, `uniform:LOW:HIGH`, `lognormal:MEDIAN:SIGMA`, `held`."""
    interval_s: float = 1.0
    """The time between the bytes of a trickle."""
    rate: float = 1.0
    """The share of calls that the fault strikes, drawn with `seed`."""
    seed: int = 0
    first: int | None = None
    """The number of calls that it strikes before it ends."""
    for_s: float | None = None
    """The fault ends this long after it was set."""
    down_s: float | None = None
    """Flapping: the fault strikes for this long, pauses for `up_s`, and repeats."""
    up_s: float = 0.0
    per_minute: int | None = None
    """The fault strikes the calls above this rate, as `rate_limited` unless `kind` is set."""

    @classmethod
    def read(cls, order: Mapping[str, Any]) -> Self:
        """
        Build a fault from its JSON object.

        Raises:
            BadOrder: Naming the field, the value and the allowed values.
        """
        check_names("fault", order, [field.name for field in fields(cls)])
        fault = cls(**order)
        if fault.kind is not None and fault.kind not in KINDS:
            raise BadOrder(f"unknown kind {fault.kind!r}; known: {', '.join(sorted(KINDS))}")
        if fault.retry_after_form not in (None, *RETRY_FORMS):
            raise BadOrder(f"retry_after_form {fault.retry_after_form!r} is not of {RETRY_FORMS}")
        for field in fields(cls):
            value = getattr(fault, field.name)
            if field.name not in ("kind", "retry_after_form", "latency") and value is not None:
                check_number(field.name, value, whole=field.name in WHOLE)
        draw_latency(fault.latency, random.Random(0))
        if {fault.kind, fault.status, fault.latency, fault.per_minute} == {None}:
            raise BadOrder(
                "a fault needs a kind, a status, a latency or per_minute; "
                f"kinds: {', '.join(sorted(KINDS))}"
            )
        if fault.status is not None and not 100 <= fault.status <= 599:
            raise BadOrder(f"status must be one of HTTP's, 100 to 599, not {fault.status}")
        if fault.rate > 1:
            raise BadOrder(f"rate is a share, from 0 to 1, not {fault.rate}")
        return fault

    @property
    def name(self) -> str:
        """The kind, or the status, as the log shows it."""
        return self.kind or (str(self.status) if self.status else "slow")

    @property
    def error_kind(self) -> str | None:
        """The kind of error to answer with; None if the fault is not an error."""
        if self.kind in ERROR_KINDS:
            return self.kind
        if self.status is None:
            return "overloaded" if self.kind == "stream_error" else None
        return STATUS_KINDS.get(self.status, "invalid" if self.status < 500 else "server_error")


class Playing:
    """
    A fault that was set; it decides for each call whether it strikes.

    Args:
        fault: What was ordered.
        now_s: The monotonic clock at that moment.
    """

    def __init__(self, fault: Fault, now_s: float) -> None:
        self.fault = fault
        self.struck = 0
        self._set_at_s = now_s
        self._random = random.Random(fault.seed)
        self._passed: deque[float] = deque()

    def strike(self, now_s: float) -> Fault | None:
        """Return the fault if it strikes this call."""
        fault = self.fault
        age_s = now_s - self._set_at_s
        if fault.for_s is not None and age_s >= fault.for_s:
            return None
        if fault.first is not None and self.struck >= fault.first:
            return None
        if fault.down_s is not None and age_s % (fault.down_s + fault.up_s or 1) >= fault.down_s:
            return None
        if fault.rate < 1 and self._random.random() >= fault.rate:
            return None
        if fault.per_minute is not None:
            wait_s = self._over_limit(fault.per_minute, now_s)
            if wait_s is None:
                return None
            wait_s = wait_s if fault.retry_after is None else fault.retry_after
            fault = replace(fault, kind=fault.kind or "rate_limited", retry_after=wait_s)
        self.struck += 1
        return fault

    def as_dict(self) -> dict[str, Any]:
        """Return the fault as it was set, and the number of calls it has struck."""
        return {**asdict(self.fault), "struck": self.struck}

    def _over_limit(self, per_minute: int, now_s: float) -> float | None:
        """Count a call of the last minute; return the wait in seconds if there are too many."""
        while self._passed and self._passed[0] <= now_s - MINUTE_S:
            self._passed.popleft()
        if len(self._passed) < per_minute:
            self._passed.append(now_s)
            return None
        return math.ceil(self._passed[0] + MINUTE_S - now_s) if self._passed else MINUTE_S


def retry_after_headers(form: str, seconds: float, now_s: float) -> dict[str, str]:
    """Return the Retry-After header; `now_s` is the epoch. Forms in the body have no header."""
    if form == "seconds":
        return {"retry-after": str(math.ceil(seconds))}
    if form == "fraction":
        return {"retry-after": f"{seconds:.3f}"}
    if form == "date":
        return {"retry-after": formatdate(math.ceil(now_s + seconds), usegmt=True)}
    if form == "ms":
        return {"retry-after-ms": str(round(seconds * 1000))}
    return {}


HELD = "held"
"""A latency that ends when the control API releases the call."""


def draw_latency(latency: float | str | None, rng: random.Random) -> float:
    """
    Draw one latency in seconds.

    Raises:
        BadOrder: It has none of the forms.
    """
    if latency in (None, HELD):
        return 0.0
    name, colon, numbers = str(latency).partition(":")
    if not colon:
        name, numbers = "", name
    try:
        values = [float(number) for number in numbers.split(":")]
        if name == "" and len(values) == 1:
            return max(0.0, values[0])
        first, second = values
        if name == "uniform":
            return rng.uniform(first, second)
        if name == "lognormal":
            return rng.lognormvariate(math.log(first), second)
    except ValueError:
        pass
    raise BadOrder(
        f"latency {latency!r} is not seconds, uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA or held"
    )


def check_names(what: str, order: Mapping[str, Any], known: list[str]) -> None:
    """
    Reject fields that do not exist.

    Raises:
        BadOrder: Naming the nearest field.
    """
    for name in order:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise BadOrder(f"unknown {what} field {name!r}; known: {', '.join(known)}{hint}")


def check_number(name: str, value: object, *, whole: bool = False) -> None:
    """
    Refuse a value that is not a number from 0 up.

    Raises:
        BadOrder: Naming the field and the value.
    """
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not value >= 0:
        raise BadOrder(f"{name} must be a {'whole ' * whole}number from 0 up, not {value!r}")


def check_flag(name: str, value: object) -> None:
    """
    Refuse a value that is neither true nor false.

    Raises:
        BadOrder: Naming the field and the value.
    """
    if not isinstance(value, bool):
        raise BadOrder(f"{name} must be true or false, not {value!r}")


def check_list(name: str, value: object) -> None:
    """
    Refuse a value that is not a list, such as a text.

    Raises:
        BadOrder: Naming the field and the value.
    """
    if not isinstance(value, list | tuple | None):
        raise BadOrder(f"{name} must be a list, not {value!r}")

"""A label is one simulated provider: its settings while healthy, and its faults."""

import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from simulator.faults import (
    BadOrder,
    Fault,
    Playing,
    check_names,
    check_number,
    draw_latency,
)
from simulator.wires.base import FINISHES, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a healthy label answers."""

    answer: str | None = None
    """The text to say; `echo` says the last user text; None names the label and a digest of it."""
    finish: str = "stop"
    latency: float | str | None = None
    """Before the answer, in the forms of `Fault.latency`."""
    interval_s: float = 0.0
    """Between the events of a stream."""
    usage: Mapping[str, int] = field(default_factory=dict)
    """Counts of `Usage` to report; the others are estimated from lengths."""
    keys: tuple[str, ...] | None = None
    """The accepted keys (an empty one among them accepts none at all); None accepts any."""
    models: tuple[str, ...] | None = None
    """The known models; None knows any."""

    @classmethod
    def read(cls, order: Mapping[str, Any]) -> Self:
        """
        Build the settings from their JSON object.

        Raises:
            BadOrder: Naming the field, the value and what is allowed.
        """
        check_names("setting", order, [f.name for f in fields(cls)])
        lists = {name: tuple(order[name]) for name in ("keys", "models") if order.get(name)}
        settings = cls(**{**order, **lists})
        if settings.finish not in FINISHES:
            raise BadOrder(f"finish {settings.finish!r} is not of {', '.join(FINISHES)}")
        check_names("usage", settings.usage, [f.name for f in fields(Usage)])
        for name, value in (("interval_s", settings.interval_s), *settings.usage.items()):
            check_number(name, value)
        draw_latency(settings.latency, random.Random(0))
        return settings


class Label:
    """One simulated provider."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings = Settings()
        self.faults: list[Playing] = []
        self.random = random.Random(name)

    def set_faults(self, faults: list[Fault]) -> None:
        """Replace the faults; their clocks start now."""
        now_s = time.monotonic()
        self.faults = [Playing(fault, now_s) for fault in faults]

    def strike(self) -> Fault | None:
        """Return the fault this call meets."""
        now_s = time.monotonic()
        return next((f for playing in self.faults if (f := playing.strike(now_s))), None)

    def as_dict(self) -> dict[str, Any]:
        """Return settings and faults for the control API; keys by their last four characters."""
        shown = asdict(self.settings)
        if self.settings.keys is not None:
            shown["keys"] = [f"…{key[-4:]}" for key in self.settings.keys]
        return {"settings": shown, "faults": [playing.as_dict() for playing in self.faults]}


class Labels(dict[str, Label]):
    """All labels; one exists from its first mention."""

    def __missing__(self, name: str) -> Label:
        """Create the label."""
        self[name] = Label(name)
        return self[name]

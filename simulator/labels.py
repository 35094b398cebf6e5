"""Labels: each is one simulated provider, with its settings while healthy and its faults."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from simulator.faults import (
    HELD,
    BadOrder,
    Fault,
    Playing,
    check_flag,
    check_list,
    check_names,
    check_number,
    draw_latency,
)
from simulator.prompt_cache import CachedContents, PrefixCache
from simulator.wires.answer import FINISHES, Usage

LISTS = {"answers", "tool_calls", "keys", "models"}
FLAGS = {"media", "prompt_cache"}
NUMBERS = ("interval_s", "first_token_s", "prompt_cache_min_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a healthy label answers."""

    answer: str | None = None
    """The text; `echo` is the last user text; None names the label and a digest of that text."""
    answers: tuple[str, ...] = ()
    """One text for each answer without calls, in order; the last one stays. Others use `answer`."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """`name` and `arguments` of the tools to call; not used after a tool's result."""
    finish: str = "stop"
    latency: float | str | None = None
    """The time before the answer, in the forms of `Fault.latency`."""
    interval_s: float = 0.0
    """The time between the events of a stream."""
    first_token_s: float = 0.0
    """From a stream's head and opening events to the first event with a part of the answer."""
    media: bool = True
    """Whether images and documents are accepted."""
    prompt_cache: bool = False
    """Whether prompts are remembered, and counted as cached when they are repeated."""
    prompt_cache_min_tokens: int = 0
    """Shorter prefixes are not cached."""
    usage: Mapping[str, int] = field(default_factory=dict)
    """The counts of `Usage` to report; the others are estimated from lengths."""
    keys: tuple[str, ...] | None = None
    """The accepted keys; an empty one accepts calls without a key. None: any but the empty one."""
    models: tuple[str, ...] | None = None
    """The models that exist; None: all of them."""

    def merged(self, order: Mapping[str, Any]) -> Self:
        """
        Return these settings, overridden by those of a JSON object; null restores a default.

        Raises:
            BadOrder: Naming the field, the value and the allowed values.
        """
        check_names("setting", order, [f.name for f in fields(self)])
        defaults = type(self)()
        order = {
            name: getattr(defaults, name) if value is None else value
            for name, value in order.items()
        }
        for name in LISTS & order.keys():
            check_list(name, order[name])
        for name in FLAGS & order.keys():
            check_flag(name, order[name])
        lists = {name: tuple(order[name]) for name in LISTS if order.get(name)}
        settings = replace(self, **{**order, **lists})
        if not isinstance(settings.answer, str | None):
            raise BadOrder(f"answer must be a text, or null, not {settings.answer!r}")
        if not isinstance(settings.usage, Mapping):
            raise BadOrder(f"usage must be an object of counts, not {settings.usage!r}")
        if settings.finish not in FINISHES:
            raise BadOrder(f"finish {settings.finish!r} is not of {', '.join(FINISHES)}")
        check_names("usage", settings.usage, [f.name for f in fields(Usage)])
        numbers = {name: getattr(settings, name) for name in NUMBERS}
        for name, value in {**numbers, **settings.usage}.items():
            check_number(name, value)
        for call in settings.tool_calls:
            _check_call(call)
        draw_latency(settings.latency, random.Random(0))
        return settings


class Label:
    """One simulated provider."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings = Settings()
        self.faults: list[Playing] = []
        self.random = random.Random(name)
        self.prefixes = PrefixCache()
        self.contents = CachedContents()
        self._said = 0
        self._held: deque[asyncio.Future[None]] = deque()
        self._holds = True

    def set(self, order: Mapping[str, Any]) -> None:
        """
        Change these settings and leave the others; `answers` start again from the first.

        Raises:
            BadOrder: The order is not valid; nothing has changed.
        """
        self.settings = self.settings.merged(order)
        self._said = 0 if "answers" in order else self._said
        self._holds = True

    def next_text(self) -> str | None:
        """Return the text that was set for this answer; None if none was."""
        if not (answers := self.settings.answers):
            return self.settings.answer or None
        self._said += 1
        return answers[min(self._said, len(answers)) - 1]

    async def wait(self, latency: float | str | None) -> None:
        """Wait for the latency of an answer."""
        if latency != HELD:
            if latency is not None:
                await asyncio.sleep(draw_latency(latency, self.random))
        elif self._holds:
            self._held.append(asyncio.get_running_loop().create_future())
            await self._held[-1]

    def release(self, count: int | None = None) -> int:
        """Answer that many held calls, oldest first; None answers all, and holds no later ones."""
        waiting = [future for future in self._held if not future.done()]
        released = waiting[:count]
        for future in released:
            future.set_result(None)
        self._held = deque(waiting[len(released) :])
        self._holds = self._holds and count is not None
        return len(released)

    def set_faults(self, faults: list[Fault]) -> None:
        """Replace the faults; their clocks start now."""
        self._holds = True
        now_s = time.monotonic()
        self.faults = [Playing(fault, now_s) for fault in faults]

    def strike(self) -> Fault | None:
        """Return the fault that strikes this call; None if there is none."""
        now_s = time.monotonic()
        return next((f for playing in self.faults if (f := playing.strike(now_s))), None)

    def as_dict(self) -> dict[str, Any]:
        """Return settings and faults for the control API; of keys only the last four characters."""
        shown = asdict(self.settings)
        if self.settings.keys is not None:
            shown["keys"] = [f"…{key[-4:]}" for key in self.settings.keys]
        return {"settings": shown, "faults": [playing.as_dict() for playing in self.faults]}


class Labels(dict[str, Label]):
    """All labels; a label is created when it is first named."""

    def __missing__(self, name: str) -> Label:
        """Create the label."""
        self[name] = Label(name)
        return self[name]


def _check_call(call: object) -> None:
    fields = call if isinstance(call, Mapping) else {}
    check_names("tool call", fields, ["name", "arguments"])
    if not isinstance(fields.get("name"), str) or not isinstance(fields.get("arguments", {}), dict):
        raise BadOrder(f"a tool call needs a name, and an object of arguments: {call!r}")

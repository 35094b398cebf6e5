"""An answer in terms common to all wires; each wire writes it in its own form."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.wires.asked import Asked

FINISHES = ("stop", "length", "tool_calls", "refusal", "content_filter")
THOUGHT = "Weighing what was asked."
"""The reasoning text of a label that counts reasoning tokens."""
PIECE = 16
"""The longest piece of a stream, in characters."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts; input includes cached and written tokens, output includes reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; all wires but Google's send its `id`, each with its own prefix."""

    id: str
    name: str
    arguments: Mapping[str, Any]

    @property
    def json(self) -> str:
        """The arguments as the JSON text that a model writes."""
        return json.dumps(self.arguments)

    def pieces(self) -> list[str]:
        """Split that text as a stream would: into at least three pieces if it is long enough."""
        text = self.json
        size = min(PIECE, max(1, len(text) // 3))
        return [text[at : at + size] for at in range(0, len(text), size)]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer; `text` may be empty, `finish` is one of `FINISHES`, `seq` makes its id."""

    seq: int
    created_s: int
    asked: Asked
    text: str
    finish: str
    usage: Usage
    calls: tuple[Call, ...] = ()

    @property
    def thought(self) -> str:
        """The reasoning, which a reader must not take for text; empty if there is none."""
        return THOUGHT if self.usage.reasoning_tokens else ""

    def pieces(self) -> list[str]:
        """Split the text as a stream would: into words, and long words into pieces."""
        return pieces(self.text)

    def thoughts(self) -> list[str]:
        """Split the reasoning in the same way."""
        return pieces(self.thought)


def pieces(text: str) -> list[str]:
    """Split a text into words with the space after them, none longer than a piece."""
    return re.findall(rf"\s*\S{{1,{PIECE}}}\s*", text)

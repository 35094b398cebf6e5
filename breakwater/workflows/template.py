"""
What a stage's prompt is made of: text, and references in braces to the input and to stages.

`{input}`, `{plan}` (the stage's text), `{plan.data}` (its data as JSON), `{plan.data.steps.0}` (a
field of it); `{{` and `}}` are plain braces. Nothing is evaluated, and no attribute is read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from breakwater.calls.call import MAX_BYTES
from breakwater.errors import InvalidPrompt

INPUT = "input"
DATA = "data"
_PIECE = re.compile(r"\{\{|\}\}|\{(?P<inside>[^{}]*)\}|[{}]")
_INDEX = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Reference:
    """What stands in a pair of braces."""

    name: str
    """`input`, or a stage."""
    path: tuple[str, ...] | None = None
    """Into its data; empty for all of it, None for its text."""

    @property
    def shown(self) -> str:
        """As it is written."""
        return "{" + ".".join([self.name, *([] if self.path is None else [DATA, *self.path])]) + "}"


class BadTemplate(ValueError):  # noqa: N818 - what somebody wrote is at fault
    """A brace or a reference that makes no sense."""


def parse(template: str) -> list[str | Reference]:
    """
    Take a template apart.

    Raises:
        BadTemplate: Saying what does not fit.
    """
    pieces: list[str | Reference] = []
    end = 0
    for match in _PIECE.finditer(template):
        pieces.append(template[end : match.start()])
        end = match.end()
        pieces.append(_piece(match))
    pieces.append(template[end:])
    return [piece for piece in pieces if piece]


def render(template: str, given: str, answers: Mapping[str, Mapping[str, Any]]) -> str:
    """
    Fill a template in.

    Args:
        given: The run's input.
        answers: Of the stages that have one, by name: `text` and `data`. The others are empty.

    Raises:
        InvalidPrompt: A stage's data has no such field, or the text is longer than a prompt may be.
    """
    pieces, size = [], 0
    for piece in parse(template):
        pieces.append(piece if isinstance(piece, str) else _said(piece, given, answers))
        size += len(pieces[-1])
        if size > MAX_BYTES:  # counted on the way: the whole may be larger than the memory
            raise InvalidPrompt(
                f"the prompt, filled in, has more than {MAX_BYTES} characters; no more are allowed"
            )
    return "".join(pieces)


def find(data: Any, path: tuple[str, ...]) -> Any:
    """
    Follow a path of keys, or of indices from 0, into JSON data.

    Raises:
        LookupError: Naming the part that is not there.
    """
    for part in path:
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(data, list) and _INDEX.fullmatch(part) and int(part) < len(data):
            data = data[int(part)]
        else:
            raise LookupError(part)
    return data


def _piece(match: re.Match[str]) -> str | Reference:
    if match[0] in {"{{", "}}"}:
        return match[0][0]
    if match["inside"] is None:
        raise BadTemplate(f"a single {match[0]!r}; write {match[0] * 2!r} for a plain brace")
    name, *path = match["inside"].strip().split(".")
    if not path:
        return Reference(name)
    if name == INPUT:
        raise BadTemplate("the input is a text, and has no fields; write '{input}'")
    if path[0] != DATA or not all(path):
        written = match[0][:60]
        raise BadTemplate(
            f"{written!r} is no reference; a field is written {{{name[:40]}.data.title}}"
        )
    return Reference(name, tuple(path[1:]))


def _said(reference: Reference, given: str, answers: Mapping[str, Mapping[str, Any]]) -> str:
    if reference.name == INPUT:
        return given
    if (answer := answers.get(reference.name)) is None:
        return ""
    if reference.path is None:
        return str(answer["text"])
    try:
        value = find(answer["data"], reference.path)
    except LookupError as missing:
        raise InvalidPrompt(
            f"{reference.shown}: the data of stage {reference.name!r} has no {missing.args[0]!r}"
        ) from None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

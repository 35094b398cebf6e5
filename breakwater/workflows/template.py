"""
Prompts of stages: text, and references in braces to the input and to earlier stages.

`{input}`, `{plan}` (the stage's text), `{plan.data}` (its data as JSON), `{plan.data.steps.0}` (a
field of its data); `{{` and `}}` are plain braces. Nothing is evaluated, and no attribute is read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from breakwater.calls.call import MAX_BYTES
from breakwater.errors import InvalidPrompt
from breakwater.result import Result

INPUT = "input"
DATA = "data"
_PIECE = re.compile(r"\{\{|\}\}|\{(?P<inside>[^{}]*)\}|[{}]")
_INDEX = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Reference:
    """The content of a pair of braces."""

    name: str
    """`input`, or the name of a stage."""
    path: tuple[str, ...] | None = None
    """The path into the stage's data; empty: all of it; None: its text instead."""

    @property
    def shown(self) -> str:
        """The reference as a template has it."""
        if self.path is None:
            return f"{{{self.name}}}"
        return f"{{{'.'.join([self.name, DATA, *self.path])}}}"


class BadTemplate(ValueError):  # noqa: N818 - the template is at fault
    """A brace or a reference that is not valid."""


def parse(template: str) -> list[str | Reference]:
    """
    Split a template into texts and references.

    Raises:
        BadTemplate: A brace or a reference is not valid; the message names it.
    """
    pieces: list[str | Reference] = []
    end = 0
    for match in _PIECE.finditer(template):
        pieces.append(template[end : match.start()])
        end = match.end()
        pieces.append(_piece(match))
    pieces.append(template[end:])
    return [piece for piece in pieces if piece]


def render(template: str, run_input: str, answers: Mapping[str, Result]) -> str:
    """
    Fill a template in.

    Args:
        run_input: The run's input.
        answers: The answers by the name of their stage; a reference to a missing one is empty.

    Raises:
        InvalidPrompt: A stage's data has no such field, or the text exceeds the limit of a prompt.
    """
    texts: list[str] = []
    size = 0
    for piece in parse(template):
        text = piece
        if isinstance(text, Reference):
            text = _resolve(text, run_input, answers)
        texts.append(text)
        size += len(text)
        if size > MAX_BYTES:  # checked in the loop: the whole may be larger than the memory
            raise InvalidPrompt(
                f"the prompt, filled in, has more than {MAX_BYTES} characters; no more are allowed"
            )
    return "".join(texts)


def find(data: object, path: tuple[str, ...]) -> object:
    """
    Follow a path of keys, or of indices from 0, into JSON data.

    Raises:
        LookupError: A part does not exist; the error names it.
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
            f"{written!r} is not a valid reference; a field is written {{{name[:40]}.data.title}}"
        )
    return Reference(name, tuple(path[1:]))


def _resolve(reference: Reference, run_input: str, answers: Mapping[str, Result]) -> str:
    if reference.name == INPUT:
        return run_input
    if (answer := answers.get(reference.name)) is None:
        return ""
    if reference.path is None:
        return answer["text"]
    try:
        value = find(answer["data"], reference.path)
    except LookupError as missing:
        raise InvalidPrompt(
            f"{reference.shown}: the data of stage {reference.name!r} has no {missing.args[0]!r}"
        ) from None
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)

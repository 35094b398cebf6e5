"""
Make each answer one that can be handed back: to us as the next prompt, and to every vendor.

In an answer, what a model made up is repaired. Ids are made unique within the answer. A name that
no vendor takes gets an underscore for each character that does not fit. In arguments, NaN and
Infinity become null, as `JSON.stringify` writes them, and half a surrogate pair becomes U+FFFD, as
in `String.prototype.toWellFormed`. In a prompt, ids are made unique over the conversation: many
servers send `call_0` in every turn, and Anthropic refuses a repeated id.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any
from uuid import uuid4

from breakwater.content import Message

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")


class UniqueCallIds:
    """The ids of one answer's tool calls; the same in its stream and in its result."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def unique(self, received: str | None) -> str:
        """Return a call's id; another one if it is blank, or if an earlier call has it."""
        id_ = well_formed(received or "")
        if not id_.strip():
            return new_call_id()
        count = self._counts[id_] = self._counts.get(id_, 0) + 1
        if count == 1:
            return id_
        return _numbered(id_, count)


def valid_tool_name(received: str) -> str:
    """Return a tool's name as every vendor takes it; a name that fits is not changed."""
    if _NAME.fullmatch(received):
        return received
    name = _UNFIT.sub("_", received)
    if not name[:1].isalpha():
        name = f"_{name}"
    return name[:64]


def well_formed(text: str) -> str:
    """Join surrogate pairs, and replace half ones."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def portable_json(value: Any) -> Any:
    """
    Return JSON data that any language can read.

    Args:
        value: JSON data whose nesting is bounded.
    """
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return _repaired(value)
    return value


def with_unique_call_ids(messages: Sequence[Message]) -> Sequence[Message]:
    """Return a conversation whose tool calls have unique ids, which every vendor takes."""
    for message in messages:
        if message.tool_calls:
            return _renumbered(messages)
    return messages


def _renumbered(messages: Sequence[Message]) -> list[Message]:
    sent: list[Message] = []
    used: set[str] = set()
    repeats: Counter[str] = Counter()
    ids: dict[str | None, str] = {}
    for message in messages:
        if message.tool_calls:
            ids = {}
            for call in message.tool_calls:
                id_ = fitting = call_id(call.id)
                while id_ in used:
                    repeats[fitting] += 1
                    id_ = _numbered(fitting, repeats[fitting])
                used.add(id_)
                ids[call.id] = id_
            calls = tuple(replace(call, id=ids[call.id]) for call in message.tool_calls)
            sent.append(replace(message, tool_calls=calls))
        elif message.role == "tool":
            received = message.tool_call_id
            sent.append(replace(message, tool_call_id=ids.get(received) or call_id(received)))
        else:
            sent.append(message)
    return sent


def call_id(received: str | None) -> str:
    """Return a tool call's id as every vendor takes it, also if another vendor made it."""
    if received and _ID.fullmatch(received):
        return received
    return f"call_{sha256((received or '').encode()).hexdigest()[:24]}"


def new_call_id() -> str:
    """Return an id for a tool call that came without one."""
    return f"call_{uuid4().hex[:24]}"


def _numbered(id_: str, number: int) -> str:
    """Return the id of the nth call with this id; the same each time, for the prompt caches."""
    return call_id(f"{id_}\n{number}")


def _repaired(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, Mapping):
        return {well_formed(str(name)): _repaired(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_repaired(each) for each in value]
    return value

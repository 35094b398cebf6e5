"""
Tool calls of a Chat Completions stream, put together from pieces as servers really number them.

OpenAI gives each call an index and sends id and name once. Others leave the index out (Gemini's
compatible endpoint, SambaNova), send 0 for every call (Ollama, gateways before vLLM) or begin with
1, repeat id and name in each piece (SGLang, MiniMax) or split the name (Mistral, Gemini), or send
arguments as an object (Ollama, GLM).
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.providers.round_trip import new_call_id

SendPiece = Callable[[int, str | None, str | None, str], None]
"""Takes a piece: position of its call, then id, name and arguments, None or empty if not in it."""


@dataclass(slots=True)
class _Call:
    position: int
    index: int | None
    given_id: str
    id: str
    name: str = ""
    arguments: str = ""
    sent: int | None = None
    """How many characters of the arguments were told; None: nothing of the call was."""

    @property
    def is_complete(self) -> bool:
        """Tell whether the arguments are a JSON object already."""
        if not self.arguments.rstrip().endswith("}"):
            return False
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False


class ToolCalls:
    """
    The calls of one answer.

    Args:
        tell: Takes each piece, in order.
        names: Of the tools that were offered: such a name is whole.
    """

    def __init__(self, send: SendPiece, names: Collection[str]) -> None:
        self._send_piece = send
        self._names = names
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self._calls)

    def take(self, piece: Mapping[str, Any]) -> None:
        """Take a piece: an entry of a delta's `tool_calls`, or its `function_call` as one."""
        function = piece.get("function")
        if not isinstance(function, Mapping):
            function = piece  # flat, or the legacy form
        id_, name = _text(piece.get("id")), _text(function.get("name"))
        arguments = _json_text(function.get("arguments"))
        index = _position(piece.get("index"))
        if not (id_ or name or arguments) and not self._at(index):
            return  # an empty slot
        call = self._find(index, id_, name, arguments)
        if call is None or self._begins_again(call, name, arguments):
            name = name or (call.name if call else "")
            call = self._begin(index, id_)
        self._extend(call, name, arguments)

    def close(self) -> list[dict[str, Any]]:
        """Tell what was held back, and return the calls as a plain answer has them."""
        for call in self._calls:
            self._send(call)
        return [
            {"id": call.id, "type": "function",
             "function": {"name": call.name, "arguments": call.arguments}}
            for call in self._calls
            if call.name or call.arguments
        ]  # fmt: skip

    def _find(self, index: int | None, id_: str, name: str, arguments: str) -> _Call | None:
        """Find the call that a piece goes on; None if it begins another."""
        if id_:
            same = [call for call in self._calls if call.given_id == id_]
            same = [call for call in same if None in {index, call.index} or call.index == index]
            if same and not self._is_next(same[-1], name, arguments, repeats_id=True):
                return same[-1]
        last = self._at(index)
        if last is None:
            return None
        if id_ and last.given_id and last.given_id != id_ and (name or last.is_complete):
            return None  # LM Studio gives each piece another id, but a name to the first alone
        return None if self._is_next(last, name, arguments) else last

    def _at(self, index: int | None) -> _Call | None:
        """Return the newest call of an index; without one, the newest of all."""
        calls = [c for c in self._calls if index is None or c.index is None or c.index == index]
        return calls[-1] if calls else None

    def _is_next(self, last: _Call, name: str, arguments: str, *, repeats_id: bool = False) -> bool:
        """Tell a piece that begins a call from one that repeats the name of a call that goes on."""
        if not name or not last.name:
            return False
        if name != last.name and last.name in self._names and name in self._names:
            return True
        begins = arguments.lstrip().startswith("{")
        return begins and last.is_complete and not (repeats_id and arguments == last.arguments)

    def _begins_again(self, call: _Call, name: str, arguments: str) -> bool:
        """Tell arguments of a next call whose name came alone, and was taken for a repeated one."""
        begins = arguments.lstrip().startswith("{") and not name
        return begins and call.is_complete and call.arguments.strip() != "{}"

    def _begin(self, index: int | None, id_: str) -> _Call:
        if self._calls:
            self._send(self._calls[-1])
        is_free = id_ and id_ not in {call.id for call in self._calls}
        call = _Call(len(self._calls), index, id_, id_ if is_free else new_call_id())
        self._calls.append(call)
        return call

    def _extend(self, call: _Call, name: str, arguments: str) -> None:
        call.name = self._joined(call, name)
        if call.arguments.strip() == "{}" and arguments.lstrip().startswith("{"):
            call.arguments = ""  # a placeholder
        if not (arguments and arguments == call.arguments and call.is_complete):  # told twice
            call.arguments += arguments
        # A name may still grow, and an empty object may be a placeholder, until there is more.
        if call.name in self._names and call.arguments.strip() not in {"", "{}"}:
            self._send(call)

    def _joined(self, call: _Call, name: str) -> str:
        """Return a call's name with the next piece of it, which may repeat it or go on with it."""
        joined = call.name + name
        if joined in self._names or not call.name:
            return joined
        if name.startswith(call.name) and not call.arguments:
            return name  # all of it so far
        is_piece = not call.arguments and call.name not in self._names
        return joined if is_piece and name != call.name else call.name

    def _send(self, call: _Call) -> None:
        arguments = call.arguments[call.sent or 0 :]
        if call.sent is None and (call.name or call.arguments):
            self._send_piece(call.position, call.id, call.name, arguments)
        elif arguments:
            self._send_piece(call.position, None, None, arguments)
        else:
            return
        call.sent = (call.sent or 0) + len(arguments)


def tool_call_pieces(delta: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the pieces of calls in a delta or a message, the legacy `function_call` among them."""
    entries = delta.get("tool_calls")
    if isinstance(entries, Mapping):
        entries = [entries] if entries else []
    for piece in entries if isinstance(entries, list) else ():
        # The other kind is a custom tool, never offered.
        if isinstance(piece, Mapping) and piece.get("type") != "custom":
            yield piece
    legacy = delta.get("function_call")
    if isinstance(legacy, Mapping):
        yield legacy


def _position(index: object) -> int | None:
    """Read an index; some gateways write it as a text, or as 0.0."""
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 10:
        return int(index)
    if isinstance(index, float) and index.is_integer():
        return int(index)
    return index if type(index) is int else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _json_text(arguments: object) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return json.dumps(arguments)

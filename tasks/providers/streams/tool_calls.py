"""
Merge the tool calls of a Chat Completions stream from pieces, as real servers number them.

OpenAI gives each call an index and sends id and name once. Others leave the index out (Gemini's
compatible endpoint, SambaNova), send 0 for every call (Ollama, gateways before vLLM) or begin with
1, repeat id and name in each piece (SGLang, MiniMax) or split the name (Mistral, Gemini), or send
arguments as an object (Ollama, GLM).
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from tasks.providers.json_values import JsonBody, JsonFields, as_list, as_text
from tasks.providers.round_trip import new_call_id

SendPiece = Callable[[int, str | None, str | None, str], None]
"""
Receives a piece: the position of its call, its id, its name, and its piece of the arguments.

Id and name are None, and the arguments empty, if they are not in the piece.
"""


@dataclass(slots=True)
class _Call:
    position: int
    index: int | None
    given_id: str
    id: str
    name: str = ""
    arguments: str = ""
    sent: int | None = None
    """How many characters of the arguments were forwarded; None: nothing of the call was."""

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are a JSON object already."""
        if not self.arguments.rstrip().endswith("}"):
            return False
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False


class ToolCalls:
    """
    The tool calls of one answer.

    Args:
        send: Receives each piece, in order.
        names: Of the tools that were offered; such a name is complete.
    """

    def __init__(self, send: SendPiece, names: Collection[str]) -> None:
        self._send_piece = send
        self._names = names
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        """Return whether there is a call."""
        return bool(self._calls)

    def take(self, piece: JsonFields) -> None:
        """Add a piece: an entry of a delta's `tool_calls`, or its `function_call`."""
        function = piece.get("function")
        if not isinstance(function, Mapping):
            function = piece  # flat, or the legacy form
        id_, name = as_text(piece.get("id")), as_text(function.get("name"))
        arguments = _json_text(function.get("arguments"))
        index = _position(piece.get("index"))
        if not (id_ or name or arguments) and not self._at(index):
            return  # an empty slot
        call = self._find(index, id_, name, arguments)
        if call is None:
            call = self._begin(index, id_)
        elif self._begins_again(call, name, arguments):
            name = name or call.name
            call = self._begin(index, id_)
        self._extend(call, name, arguments)

    def close(self) -> list[JsonBody]:
        """Forward the rest of each call; return the calls as a plain answer has them."""
        for call in self._calls:
            self._send(call)
        return [
            {"id": call.id, "type": "function",
             "function": {"name": call.name, "arguments": call.arguments}}
            for call in self._calls
            if call.name or call.arguments
        ]  # fmt: skip

    def _find(self, index: int | None, id_: str, name: str, arguments: str) -> _Call | None:
        """Find the call that a piece continues; None if it begins another."""
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
        if self._is_next(last, name, arguments):
            return None
        return last

    def _at(self, index: int | None) -> _Call | None:
        """Return the newest call of an index; without an index, the newest of all."""
        for call in reversed(self._calls):
            if index is None or call.index is None or call.index == index:
                return call
        return None

    def _is_next(self, last: _Call, name: str, arguments: str, *, repeats_id: bool = False) -> bool:
        """Return whether a piece begins a call, and does not only repeat the name of the last."""
        if not name or not last.name:
            return False
        if name != last.name and last.name in self._names and name in self._names:
            return True
        begins = arguments.lstrip().startswith("{")
        return begins and last.is_complete and not (repeats_id and arguments == last.arguments)

    def _begins_again(self, call: _Call, name: str, arguments: str) -> bool:
        """Return whether arguments begin a next call, whose name came alone, as if repeated."""
        begins = arguments.lstrip().startswith("{") and not name
        return begins and call.is_complete and call.arguments.strip() != "{}"

    def _begin(self, index: int | None, id_: str) -> _Call:
        if self._calls:
            self._send(self._calls[-1])
        call = _Call(len(self._calls), index, id_, id_)
        if not id_ or any(id_ == each.id for each in self._calls):
            call.id = new_call_id()
        self._calls.append(call)
        return call

    def _extend(self, call: _Call, name: str, arguments: str) -> None:
        call.name = self._joined(call, name)
        if call.arguments.strip() == "{}" and arguments.lstrip().startswith("{"):
            call.arguments = ""  # a placeholder
        is_repeated = arguments and arguments == call.arguments and call.is_complete
        if not is_repeated:
            call.arguments += arguments
        # Until there is more, a name may still grow, and an empty object may be a placeholder.
        if call.name in self._names and call.arguments.strip() not in {"", "{}"}:
            self._send(call)

    def _joined(self, call: _Call, name: str) -> str:
        """Return a call's name with its next piece, which may repeat the name or continue it."""
        joined = call.name + name
        if joined in self._names or not call.name:
            return joined
        if name.startswith(call.name) and not call.arguments:
            return name  # all of it so far
        if call.arguments or call.name in self._names or name == call.name:
            return call.name
        return joined

    def _send(self, call: _Call) -> None:
        arguments = call.arguments[call.sent or 0 :]
        if call.sent is None and (call.name or call.arguments):
            self._send_piece(call.position, call.id, call.name, arguments)
        elif arguments:
            self._send_piece(call.position, None, None, arguments)
        else:
            return
        call.sent = (call.sent or 0) + len(arguments)


def tool_call_pieces(delta: JsonFields) -> Iterator[JsonFields]:
    """Yield the pieces of calls in a delta or a message, the legacy `function_call` included."""
    entries = delta.get("tool_calls")
    if isinstance(entries, dict) and entries:
        entries = [entries]
    for piece in as_list(entries):
        # The other kind is a custom tool, which is never offered.
        if isinstance(piece, dict) and piece.get("type") != "custom":
            yield piece
    legacy = delta.get("function_call")
    if isinstance(legacy, dict):
        yield legacy


def _position(index: object) -> int | None:
    """Read an index; some gateways send it as a text, or as 0.0."""
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 10:
        return int(index)
    if isinstance(index, float) and index.is_integer():
        return int(index)
    if type(index) is int:
        return index
    return None


def _json_text(arguments: object) -> str:
    if arguments is None:
        return ""
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments)

"""Check a prompt, hold it as messages, and write it as JSON for the worker."""

from collections.abc import Mapping, Sequence

from breakwater.calls.media import check_text, parse_parts, part_as_json
from breakwater.calls.schema import as_json_object
from breakwater.calls.tools import NAME
from breakwater.content import JsonObject, Media, Message, ToolCall
from breakwater.errors import InvalidPrompt

SPEAKERS = ("user", "assistant", "system", "tool")
MAX_NAMED = 10
"""An error lists this many faults of a prompt, and counts the rest."""
_KEYS = {
    "user": {"role", "content"},
    "system": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}
_CALL_SHAPE = (
    "a tool call is {'id': …, 'name': …, 'arguments': {…}}, perhaps with the signature it had"
)


def parse_prompt(prompt: object) -> tuple[Message, ...]:
    """
    Check a prompt, a string or a list of messages.

    Raises:
        InvalidPrompt: Messages are at fault; the error lists one fault for each of them.
    """
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, (list, tuple)):
        raise InvalidPrompt(
            f"the prompt is a {type(prompt).__name__}; it must be a string or a list of messages"
        )
    conversation, faults = _Conversation(), []
    for at, item in enumerate(prompt):
        try:
            conversation.add(f"message {at} of the prompt", item)
        except InvalidPrompt as fault:
            faults.append(str(fault))
    if not faults:
        faults += conversation.faults_at_its_end()
    if faults:
        named = faults[:MAX_NAMED]
        parts = [*named]
        if len(faults) > MAX_NAMED:
            parts.append(f"and {len(faults) - MAX_NAMED} more")
        raise InvalidPrompt("; ".join(parts), {"faults": named})
    return tuple(conversation.messages)


def prompt_as_json(messages: Sequence[Message]) -> str | list[JsonObject]:
    """Return a prompt as its message holds it: a string if the prompt is one text of a user."""
    if len(messages) == 1 and messages[0].role == "user" and isinstance(messages[0].content, str):
        return messages[0].content
    return [_message_as_json(message) for message in messages]


class _Conversation:
    """The messages so far, and the tool calls that still need a result."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._waiting: dict[str, str] = {}  # id of a tool call → name of its tool

    def add(self, where: str, item: object) -> None:
        """Check the next message, and append it."""
        if not isinstance(item, Mapping):
            raise InvalidPrompt(f"{where} is a {type(item).__name__}; it must be an object")
        role = item.get("role")
        if not isinstance(role, str) or role not in SPEAKERS:
            allowed = ", ".join(SPEAKERS)
            raise InvalidPrompt(f"{where} has no valid role; it must be one of {allowed}")
        if unknown := sorted(str(key)[:40] for key in item.keys() - _KEYS[role])[:MAX_NAMED]:
            allowed = ", ".join(sorted(_KEYS[role]))
            raise InvalidPrompt(
                f"{where} has unknown keys {unknown}; one of role {role} has {allowed}"
            )
        calls = _tool_calls(where, item.get("tool_calls"))
        content: str | tuple[str | Media, ...] = ""
        if not calls or item.get("content") is not None:
            content = _content(where, item)
        call_id, name = (None, None)
        if role == "tool":
            call_id, name = self._answered(where, item.get("tool_call_id"))
        elif role != "system":  # adapters move system messages in front of the conversation
            self._check_no_call_waits(where)
            self._waiting = {call.id: call.name for call in calls}
        self.messages.append(Message(role, content, calls, call_id, name))  # type: ignore[arg-type]

    def faults_at_its_end(self) -> list[str]:
        """Return the faults of the conversation as a whole."""
        if self._waiting:
            return ["the prompt ends before each tool call of its last assistant message has a "
                    "result; each needs a tool message with its id"]  # fmt: skip
        if any(_says_something(message) for message in self.messages):
            return []
        if self.messages and self.messages[-1].role == "tool":
            return []
        return ["the prompt is empty; at least one user message must say or show something"]

    def _answered(self, where: str, call_id: object) -> tuple[str, str]:
        if not isinstance(call_id, str) or call_id not in self._waiting:
            raise InvalidPrompt(
                f"{where} has no valid tool_call_id; it must be that of a tool call in the "
                f"assistant message before it, each once"
            )
        return call_id, self._waiting.pop(call_id)

    def _check_no_call_waits(self, where: str) -> None:
        if count := len(self._waiting):
            self._waiting = {}  # reported once
            raise InvalidPrompt(
                f"{where} comes before {count} tool call(s) of the assistant message before it "
                f"have a result; each needs a tool message with its id"
            )


def _says_something(message: Message) -> bool:
    return message.role == "user" and (
        not isinstance(message.content, str) or bool(message.content.strip())
    )


def _content(where: str, item: Mapping[str, object]) -> str | tuple[str | Media, ...]:
    content = item.get("content")
    if isinstance(content, (list, tuple)):
        return parse_parts(where, content, text_only=item["role"] != "user")
    if not isinstance(content, str):
        raise InvalidPrompt(
            f"{where} has content of type {type(content).__name__}; "
            f"it must be a string or a list of parts"
        )
    return check_text(where, content)


def _tool_calls(where: str, value: object) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise InvalidPrompt(f"{where} has tool_calls that are not a list; {_CALL_SHAPE}")
    calls = tuple(_tool_call(f"tool call {at} of {where}", call) for at, call in enumerate(value))
    if len({call.id for call in calls}) < len(calls):
        raise InvalidPrompt(f"{where} has two tool calls of the same id; ids must differ")
    return calls


def _tool_call(where: str, call: object) -> ToolCall:
    if not isinstance(call, Mapping) or call.keys() - {"id", "name", "arguments", "signature"}:
        raise InvalidPrompt(f"{where} has the wrong shape; {_CALL_SHAPE}")
    call_id, name, signature = call.get("id"), call.get("name"), call.get("signature")
    if not check_text(f"the id of {where}", call_id).strip():
        raise InvalidPrompt(f"{where} has an empty id; it must be the one it came with")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidPrompt(f"{where} has no valid name; allowed is {NAME.pattern}")
    if signature is not None:
        check_text(f"the signature of {where}", signature)
    try:
        arguments = as_json_object(call.get("arguments"))
    except ValueError as fault:
        raise InvalidPrompt(f"the arguments of {where}: it {fault}") from None
    return ToolCall(str(call_id), name, arguments, signature)


def _message_as_json(message: Message) -> JsonObject:
    item: JsonObject = {"role": message.role, "content": message.content}
    if not isinstance(message.content, str):
        item["content"] = [part_as_json(part) for part in message.parts]
    if message.tool_calls:
        item["tool_calls"] = [call.as_dict() for call in message.tool_calls]
    if message.tool_call_id is not None:
        item["tool_call_id"] = message.tool_call_id
    return item

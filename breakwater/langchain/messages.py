"""
LangChain's messages as ours.

`content_blocks` reads every form that LangChain knows (its own, OpenAI's, Anthropic's, Google's)
as its standard blocks, version 1; of these a prompt of ours has text, images and documents.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from breakwater.errors import InvalidPrompt

SIGNATURES = "signatures"
"""Key of `additional_kwargs`: by the id of a tool call, what its vendor wants back with it."""
OWN_TURN = {
    "tool_call", "tool_call_chunk", "invalid_tool_call", "reasoning", "non_standard",
    "server_tool_call", "server_tool_call_chunk", "server_tool_result",
}  # fmt: skip
"""Blocks of a model's own turn: its calls go beside the text, its thoughts only to its vendor."""

Part = dict[str, Any]


def prompt_of(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """
    Translate a conversation.

    Raises:
        InvalidPrompt: A message is of a kind, or holds something, that no prompt of ours has.
    """
    return [_message(at, message) for at, message in enumerate(messages)]


def _message(at: int, message: BaseMessage) -> dict[str, Any]:
    where = f"message {at}"
    role = _role(where, message)
    told = {"role": role, "content": _content(where, message)}
    if isinstance(message, AIMessage) and message.tool_calls:
        told["tool_calls"] = _tool_calls(message)
    if isinstance(message, ToolMessage):
        told["tool_call_id"] = message.tool_call_id
    return told


def _role(where: str, message: BaseMessage) -> str:
    kinds = {
        HumanMessage: "user", AIMessage: "assistant", SystemMessage: "system", ToolMessage: "tool",
    }  # fmt: skip
    for kind, role in kinds.items():
        if isinstance(message, kind):
            return role
    if isinstance(message, ChatMessage) and message.role in {"user", "assistant", "system"}:
        return message.role
    raise InvalidPrompt(
        f"{where} is a {type(message).__name__}; a prompt has human, AI, system and tool messages"
    )


def _tool_calls(message: AIMessage) -> list[dict[str, Any]]:
    signatures = message.additional_kwargs.get(SIGNATURES) or {}
    calls = []
    for call in message.tool_calls:
        told = {"id": call["id"], "name": call["name"], "arguments": call["args"]}
        if signature := signatures.get(call["id"]):
            told["signature"] = signature
        calls.append(told)
    return calls


def _content(where: str, message: BaseMessage) -> str | list[Part]:
    if isinstance(message.content, str):
        return message.content
    parts = list(_parts(where, message, message.content_blocks))
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _parts(where: str, message: BaseMessage, blocks: Iterable[Any]) -> Iterable[Part]:
    for block in blocks:
        kind = block["type"]
        if kind in {"text", "text-plain"} and "text" in block:
            yield {"type": "text", "text": block["text"]}
        elif kind in {"image", "file", "text-plain"}:
            yield _media(where, block, "image" if kind == "image" else "document")
        elif kind == "non_standard" and isinstance(url := block["value"].get("image_url"), str):
            yield {"type": "image", "url": url}
        elif not isinstance(message, AIMessage) or kind not in OWN_TURN:
            kind = block["value"].get("type") if kind == "non_standard" else kind
            raise InvalidPrompt(
                f"{where} has a block of type {str(kind)[:40]!r}; a prompt has text, images and "
                f"documents"
            )


def _media(where: str, block: Mapping[str, Any], kind: str) -> Part:
    if url := block.get("url"):
        return {"type": kind, "url": url}
    if not (data := block.get("base64")):
        raise InvalidPrompt(
            f"{where} has a {block['type']} without url and base64; a file that was uploaded to "
            f"one vendor is unknown to the others of a chain"
        )
    default = {"document": "application/pdf"}
    part = {"type": kind, "data": data}
    if media_type := block.get("mime_type") or default.get(kind):
        part["media_type"] = media_type
    extras = block.get("extras") or {}
    named = [block.get("filename"), extras.get("filename"), block.get("title"), extras.get("title")]
    if kind == "document" and (name := next(filter(None, named), None)):
        part["name"] = name
    return part

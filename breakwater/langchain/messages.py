"""
Translate LangChain's messages to ours.

`content_blocks` converts every form that LangChain knows (its own, OpenAI's, Anthropic's, Google's)
to its standard blocks, version 1. Our prompts can hold text, images and documents of these.
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

from breakwater.content import JsonObject
from breakwater.errors import InvalidPrompt

SIGNATURES = "signatures"
"""Key of `additional_kwargs`: values by the id of a tool call that its vendor expects back."""
MODEL_BLOCKS = {
    "tool_call", "tool_call_chunk", "invalid_tool_call", "reasoning", "non_standard",
    "server_tool_call", "server_tool_call_chunk", "server_tool_result",
}  # fmt: skip
"""
Blocks that only a model writes: tool calls, which have a field of their own in our messages, and
reasoning, which only its vendor can read.
"""


def prompt_of(messages: Sequence[BaseMessage]) -> list[JsonObject]:
    """
    Translate a conversation.

    Raises:
        InvalidPrompt: A message has a type or a block that our prompts cannot hold.
    """
    return [_message(at, message) for at, message in enumerate(messages)]


def _message(at: int, message: BaseMessage) -> JsonObject:
    where = f"message {at}"
    item: JsonObject = {"role": _role(where, message), "content": _content(where, message)}
    if isinstance(message, AIMessage) and message.tool_calls:
        item["tool_calls"] = _tool_calls(message)
    if isinstance(message, ToolMessage):
        item["tool_call_id"] = message.tool_call_id
    return item


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


def _tool_calls(message: AIMessage) -> list[JsonObject]:
    signatures = message.additional_kwargs.get(SIGNATURES) or {}
    calls = []
    for call in message.tool_calls:
        item: JsonObject = {"id": call["id"], "name": call["name"], "arguments": call["args"]}
        if signature := signatures.get(call["id"]):
            item["signature"] = signature
        calls.append(item)
    return calls


def _content(where: str, message: BaseMessage) -> str | list[JsonObject]:
    if isinstance(message.content, str):
        return message.content
    parts = list(_parts(where, message, message.content_blocks))
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _parts(
    where: str, message: BaseMessage, blocks: Iterable[Mapping[str, Any]]
) -> Iterable[JsonObject]:
    for block in blocks:
        kind = block["type"]
        if kind in {"text", "text-plain"} and "text" in block:
            yield {"type": "text", "text": block["text"]}
        elif kind in {"image", "file", "text-plain"}:
            yield _media(where, block)
        elif kind == "non_standard" and isinstance(url := block["value"].get("image_url"), str):
            yield {"type": "image", "url": url}
        elif not isinstance(message, AIMessage) or kind not in MODEL_BLOCKS:
            if kind == "non_standard":
                kind = block["value"].get("type")
            raise InvalidPrompt(
                f"{where} has a block of type {str(kind)[:40]!r}; a prompt has text, images and "
                f"documents"
            )


def _media(where: str, block: Mapping[str, Any]) -> JsonObject:
    kind, default = "document", "application/pdf"
    if block["type"] == "image":
        kind, default = "image", ""
    if url := block.get("url"):
        return {"type": kind, "url": url}
    if not (data := block.get("base64")):
        raise InvalidPrompt(
            f"{where} has a {block['type']} without url and base64; a file that was uploaded to "
            f"one vendor is unknown to the other vendors of a chain"
        )
    part = {"type": kind, "data": data}
    if media_type := block.get("mime_type") or default:
        part["media_type"] = media_type
    extras = block.get("extras") or {}
    names = [block.get("filename"), extras.get("filename"), block.get("title"), extras.get("title")]
    if kind == "document" and (name := next(filter(None, names), None)):
        part["name"] = name
    return part

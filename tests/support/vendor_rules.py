"""
What each vendor refuses in a conversation with 400, as its documents and public reports have it.

`RULES[adapter](body)` yields what is wrong with a request's body. Sources: Anthropic, Messages API
(roles, tool use, "text content blocks must be non-empty", ids unique and of `^[a-zA-Z0-9_-]+$`);
OpenAI, API reference of Chat Completions and Responses (names and ids of 64 characters, a result for
each call); Google, `Content`, `FunctionCall` and `FunctionDeclaration` (no empty part, as many
responses as calls, in the turn behind).
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
Body = Mapping[str, Any]


def _anthropic(body: Body) -> Iterator[str]:
    turns = body["messages"]
    if not turns or turns[0]["role"] != "user":
        yield "the first turn is not the user's"
    waiting: list[str] = []
    seen: list[str] = []
    for turn in turns:
        blocks = turn["content"]
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        if not blocks:
            yield "a turn without content"
        results = [each["tool_use_id"] for each in blocks if each["type"] == "tool_result"]
        if sorted(results) != sorted(waiting):
            yield "calls and results do not match"
        if results and blocks[0]["type"] != "tool_result":
            yield "results do not come first"
        waiting = [each["id"] for each in blocks if each["type"] == "tool_use"]
        seen += waiting
        for block in blocks:
            yield from _anthropic_block(turn["role"], block)
    if waiting:
        yield "calls without results"
    if len({*seen}) < len(seen):
        yield "ids that are not unique"
    yield from _anthropic_frame(body, has_calls=bool(seen))


def _anthropic_frame(body: Body, *, has_calls: bool) -> Iterator[str]:
    if has_calls and not body.get("tools"):
        yield "calls without tools"
    last = body["messages"][-1]
    if last["role"] == "assistant" and isinstance(last["content"], str):
        if last["content"] != last["content"].rstrip():
            yield "the last turn ends in white space"
    system = body.get("system", "x")
    if isinstance(system, str) and not system.strip():
        yield "a blank system prompt"


def _anthropic_block(role: str, block: Body) -> Iterator[str]:
    if block["type"] == "text" and not block["text"].strip():
        yield "a blank text"
    if block["type"] == "tool_use":
        if role != "assistant" or not _NAME.fullmatch(block["name"]):
            yield f"a call of {block['name']!r} by {role}"
        if not _NAME.fullmatch(block["id"]) or not isinstance(block["input"], dict):
            yield "a call's id or input"
    if block["type"] == "tool_result":
        content = block.get("content", "x")
        if not (content if isinstance(content, str) else "x").strip():
            yield "a blank result"


def _chat(body: Body) -> Iterator[str]:
    waiting: list[str] = []
    seen: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                yield "a result of no call"
            else:
                waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            yield "calls without results"
        waiting = []
        for call in message.get("tool_calls", ()):
            function = call["function"]
            yield from _function(call["id"], function["name"], function["arguments"], seen)
            waiting.append(call["id"])
        if not isinstance(message["content"], str | list):
            yield "a message without content"
    if waiting:
        yield "calls without results"


def _responses(body: Body) -> Iterator[str]:
    waiting: set[str] = set()
    seen: set[str] = set()
    for item in body["input"]:
        if item.get("type") == "function_call":
            yield from _function(item["call_id"], item["name"], item["arguments"], seen)
            waiting.add(item["call_id"])
        elif item.get("type") == "function_call_output":
            if item["call_id"] not in waiting:
                yield "a result of no call"
            waiting.discard(item["call_id"])
        elif waiting:
            yield "calls without results"
    if waiting:
        yield "calls without results"


def _function(id_: str, name: str, arguments: str, seen: set[str]) -> Iterator[str]:
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(id_):
        yield f"a call's id or name: {id_!r}, {name!r}"
    if id_ in seen:
        yield f"the id {id_!r} is not unique"
    seen.add(id_)
    if not isinstance(json.loads(arguments), dict):
        yield "arguments that are no object"


def _google(body: Body) -> Iterator[str]:
    waiting: list[str] = []
    for turn in body["contents"]:
        parts = [json.loads(part.model_dump_json(exclude_none=True)) for part in turn["parts"]]
        if not parts:
            yield "a turn without parts"
        responses = [p["function_response"]["name"] for p in parts if "function_response" in p]
        if responses != waiting:
            yield "calls and results do not match"
        waiting = [part["function_call"]["name"] for part in parts if "function_call" in part]
        for part in parts:
            if "text" in part and not part["text"]:
                yield "an empty text"
        calls = [part for part in parts if "function_call" in part]
        if calls and not calls[0].get("thought_signature"):
            yield "a call without a signature"
        for name in waiting:
            if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", name):
                yield f"a call's name: {name!r}"
    if waiting:
        yield "calls without results"


RULES: Mapping[str, Callable[[Body], Iterator[str]]] = {
    "anthropic": _anthropic, "openai": _responses, "openai-chat": _chat, "google": _google,
}  # fmt: skip


def faults(adapter: str, body: Body) -> list[str]:
    """Return what the vendor would refuse; the body must be writable as JSON, in UTF-8."""
    if adapter != "google":
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    return list(RULES[adapter](body))

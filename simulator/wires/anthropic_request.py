"""
Read a request to Anthropic's messages API, and refuse what Anthropic refuses.

Source: the types of the anthropic SDK 2.12 and the vendor's pages on tool use, vision, PDF,
structured outputs and prompt caching.
"""

from typing import Any

from simulator.connection import Request
from simulator.schemas import fault_at_anthropic
from simulator.wires.asked import Asked, Params, Tool, Turn
from simulator.wires.base import Rejected
from simulator.wires.reading import (
    IMAGE_TYPES,
    check_base64,
    check_choice,
    check_next,
    check_url,
    inner,
    messages,
    objects,
    size_of,
    text_of,
    tool,
)

SAMPLING_ENDED = "2026-10-21"
NO_CALL = (
    "messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {ids}. Each "
    "`tool_result` block must have a corresponding `tool_use` block in the previous message."
)
NO_RESULT = (
    "messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
    "{ids}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
    "message."
)
CHOICES = {"any": "required"}
BREAKPOINTS = 4
BLOCKS = (
    "text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking",
)  # fmt: skip
DOCUMENT_TYPES = {"base64": ("application/pdf",), "text": ("text/plain",)}


def read(request: Request, body: dict[str, Any]) -> Asked:
    """
    Read a messages request.

    Raises:
        Rejected: Anthropic would refuse it.
    """
    _check_fields(request, body)
    turns = tuple(
        _turn(message, f"messages.{at}")
        for at, message in enumerate(messages(body.get("messages"), "messages"))
    )
    check_next(turns, NO_CALL, NO_RESULT)
    offered = objects(body.get("tools"), "tools")
    tools = tuple(_tool(each, f"tools.{at}.custom") for at, each in enumerate(offered))
    prefix = _prefix(body, offered)
    text = sum(len(turn.text) for turn in turns) + len(text_of(body.get("system")))
    return Asked(
        str(body["model"]), text + size_of(offered), bool(body.get("stream")), turns, tools,
        _choice(body.get("tool_choice"), tools),
        _schema(body), None, _params(body),
        any(marked for _, marked in prefix), prefix,
    )  # fmt: skip


def _check_fields(request: Request, body: dict[str, Any]) -> None:
    version = request.headers.get("anthropic-version")
    if not version:
        raise Rejected("invalid", "anthropic-version: header is required")
    for name in ("model", "max_tokens"):
        if name not in body:
            raise Rejected("invalid", f"{name}: Field required")
    unknown = [] if version < SAMPLING_ENDED else ["temperature", "top_p", "top_k"]
    for name in (*unknown, "stop", "seed", "response_format"):
        if name in body:
            raise Rejected("invalid", f"{name}: Extra inputs are not permitted")


def _turn(message: dict[str, Any], where: str) -> Turn:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        raise Rejected("invalid", f"{where}.role: Input should be 'user' or 'assistant'")
    if not content:
        raise Rejected("invalid", f"{where}: all messages must have non-empty content")
    if isinstance(content, str):
        return Turn(role, content)
    blocks = objects(content, where)
    kinds = [_check_block(block, f"{where}.content.{at}") for at, block in enumerate(blocks)]
    nested = [
        _check_block(part, f"{where}.content")
        for block in blocks
        if block["type"] == "tool_result" and isinstance(block.get("content"), list)
        for part in objects(block["content"], where)
    ]
    results = tuple(str(b.get("tool_use_id")) for b in blocks if b["type"] == "tool_result")
    calls = tuple(str(block.get("id")) for block in blocks if block["type"] == "tool_use")
    if results and kinds[: len(results)] != ["tool_result"] * len(results):
        raise Rejected("invalid", f"{where}: `tool_result` blocks must come first in a message")
    every = kinds + nested
    said = Turn("tool" if results else role, text_of(blocks), every.count("image"))
    return Turn(said.role, said.text, said.images, every.count("document"), calls, results)


def _check_block(block: dict[str, Any], where: str) -> str:
    kind = str(block.get("type"))
    if kind not in BLOCKS:
        raise Rejected("invalid", f"{where}: Input tag '{kind}' does not match any of {BLOCKS}")
    if kind == "text" and not block.get("text"):
        raise Rejected("invalid", f"{where}: text content blocks must be non-empty")
    if kind == "tool_use" and not isinstance(block.get("input"), dict):
        raise Rejected("invalid", f"{where}.tool_use.input: Input should be a valid dictionary")
    if kind in ("image", "document"):
        _check_source(inner(block.get("source")), kind, f"{where}.{kind}.source")
    return kind


def _check_source(source: dict[str, Any], kind: str, where: str) -> None:
    form = str(source.get("type"))
    types = {"base64": IMAGE_TYPES} if kind == "image" else DOCUMENT_TYPES
    if form == "url":
        check_url(source.get("url"), f"{where}.url.url")
    elif form in types:
        if source.get("media_type") not in types[form]:
            allowed = ", ".join(repr(each) for each in types[form])
            raise Rejected("invalid", f"{where}.{form}.media_type: Input should be {allowed}")
        if form == "base64":
            check_base64(source.get("data"), f"{where}.base64")
    elif form not in ("file", "content"):
        raise Rejected("invalid", f"{where}: Input tag '{form}' does not match the expected tags")


def _tool(said: dict[str, Any], where: str) -> Tool:
    schema = said.get("input_schema")
    if inner(schema).get("type") != "object":
        raise Rejected("invalid", f"{where}.input_schema.type: Field required")
    if said.get("strict") and (fault := fault_at_anthropic(schema)):
        raise Rejected("invalid", f"{where}: {fault}")
    return tool(said.get("name"), schema, where)


def _choice(said: object, tools: tuple[Tool, ...]) -> str | None:
    chosen = inner(said)
    kind = chosen.get("type")
    choice = chosen.get("name") if kind == "tool" else CHOICES.get(str(kind), kind)
    check_choice(choice, tools)
    return choice


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    form = inner(inner(body.get("output_config")).get("format"))
    if form.get("type") != "json_schema":
        return None
    if fault := fault_at_anthropic(form.get("schema")):
        raise Rejected("invalid", f"output_config.format.schema: {fault}")
    return inner(form["schema"])


def _params(body: dict[str, Any]) -> Params:
    effort = inner(body.get("output_config")).get("effort")
    return Params(
        effort, body.get("stop_sequences"), None, body.get("temperature"), body.get("max_tokens")
    )


def _prefix(body: dict[str, Any], offered: list[dict[str, Any]]) -> tuple[tuple[object, bool], ...]:
    """Return tools, system and messages block by block, in the order in which they are cached."""
    system, blocks = body.get("system"), list(offered)
    blocks += objects(system, "system") if isinstance(system, list) else [inner({"text": system})]
    for message in body["messages"]:
        content = message["content"]
        blocks += content if isinstance(content, list) else [{"text": content}]
    marks = ["cache_control" in block for block in blocks]
    marks[-1] = marks[-1] or "cache_control" in body
    if (found := sum(marks)) > BREAKPOINTS:
        raise Rejected(
            "invalid", f"A maximum of {BREAKPOINTS} blocks with cache_control may be provided. "
            f"Found {found}.",
        )  # fmt: skip
    bare = ({key: block[key] for key in block if key != "cache_control"} for block in blocks)
    return tuple(zip(bare, marks, strict=True))

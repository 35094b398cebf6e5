"""Translate our results and events to LangChain's messages."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk

from breakwater.attempt import Usage
from breakwater.content import JsonObject
from breakwater.langchain.messages import SIGNATURES
from breakwater.result import Result

if TYPE_CHECKING:
    from breakwater.asking.events import Event

PARSED = "parsed"
"""Key of `additional_kwargs`: the value that satisfies the schema; absent without a schema."""
METADATA = ("provider", "finish_reason", "cost_usd", "task_id", "role", "latency_ms", "queued_ms",
            "request_id", "attempts")  # fmt: skip
"""Keys that `response_metadata` copies from the result; it also has LangChain's `model_name`."""


def message_of(result: Result) -> AIMessage:
    """Translate a result."""
    calls = [
        tool_call(name=call["name"], args=call["arguments"], id=call["id"])
        for call in result["tool_calls"]
    ]
    return AIMessage(result["text"] or "", tool_calls=calls, **_about(result))


def piece_of(event: "Event") -> AIMessageChunk:
    """Translate an event that is a piece of the answer."""
    if event.type == "text":
        return AIMessageChunk(content=event.text)
    piece = tool_call_chunk(
        name=event.name, args=event.arguments, id=event.call_id, index=event.index
    )
    return AIMessageChunk(content="", tool_call_chunks=[piece])


def end_of(result: Result) -> AIMessageChunk:
    """Return the last chunk of a stream; earlier chunks have its text and its tool calls."""
    return AIMessageChunk(content="", chunk_position="last", **_about(result))


def _about(result: Result) -> JsonObject:
    more: JsonObject = {}
    calls = result["tool_calls"]
    signatures = {call["id"]: call["signature"] for call in calls if call.get("signature")}
    if signatures:
        more[SIGNATURES] = signatures
    if result["data"] is not None:
        more[PARSED] = result["data"]
    known: Mapping[str, object] = result
    metadata = {name: known[name] for name in METADATA if name in known}
    return {
        "additional_kwargs": more,
        **_usage(Usage.from_dict(result["usage"])),
        "response_metadata": {**metadata, "model_name": result["model"]},
    }


def _usage(usage: Usage) -> dict[str, UsageMetadata]:
    """
    Return `usage_metadata`; empty if the provider did not count, because it takes no null.

    A count that is not known is left out of the details.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return {}
    input_details: InputTokenDetails = {}
    if usage.cached_input_tokens is not None:
        input_details["cache_read"] = usage.cached_input_tokens
    if usage.cache_write_tokens is not None:
        input_details["cache_creation"] = usage.cache_write_tokens
    output_details: OutputTokenDetails = {}
    if usage.reasoning_tokens is not None:
        output_details["reasoning"] = usage.reasoning_tokens
    metadata = UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_token_details=input_details,
        output_token_details=output_details,
    )
    return {"usage_metadata": metadata}

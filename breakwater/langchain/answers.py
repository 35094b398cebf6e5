"""Our results and events as LangChain's messages."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk

from breakwater.langchain.messages import SIGNATURES

if TYPE_CHECKING:
    from breakwater.asking.events import Event

PARSED = "parsed"
"""Key of `additional_kwargs`: the value that satisfies the schema; absent where none was asked."""
METADATA = ("provider", "finish_reason", "cost_usd", "task_id", "role", "latency_ms", "queued_ms",
            "request_id", "attempts")  # fmt: skip
"""What `response_metadata` takes over from the result; LangChain's name of `model` comes to it."""


def message_of(result: Mapping[str, Any]) -> AIMessage:
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


def end_of(result: Mapping[str, Any]) -> AIMessageChunk:
    """Return what is known at the end of a stream; its text and its tool calls were told before."""
    return AIMessageChunk(content="", chunk_position="last", **_about(result))


def _about(result: Mapping[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {}
    calls = result["tool_calls"]
    if signatures := {c["id"]: c["signature"] for c in calls if c.get("signature")}:
        more[SIGNATURES] = signatures
    if result["data"] is not None:
        more[PARSED] = result["data"]
    metadata = {name: result[name] for name in METADATA if name in result}
    return {
        "additional_kwargs": more,
        **_usage(result["usage"]),
        "response_metadata": {**metadata, "model_name": result["model"]},
    }


def _usage(usage: Mapping[str, int | None]) -> dict[str, UsageMetadata]:
    """
    Return `usage_metadata`; none where the provider did not count, because it takes no null.

    A breakdown that is not known is left out of the details.
    """
    known = {name: count for name, count in usage.items() if count is not None}
    if not {"input_tokens", "output_tokens"} <= known.keys():
        return {}
    cached: InputTokenDetails = {}
    if "cached_input_tokens" in known:
        cached["cache_read"] = known["cached_input_tokens"]
    if "cache_write_tokens" in known:
        cached["cache_creation"] = known["cache_write_tokens"]
    answered: OutputTokenDetails = {}
    if "reasoning_tokens" in known:
        answered["reasoning"] = known["reasoning_tokens"]
    metadata = UsageMetadata(
        input_tokens=known["input_tokens"],
        output_tokens=known["output_tokens"],
        total_tokens=known["input_tokens"] + known["output_tokens"],
        input_token_details=cached,
        output_token_details=answered,
    )
    return {"usage_metadata": metadata}

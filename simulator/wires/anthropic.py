"""
Anthropic's messages API.

Source: the types and error classes of the anthropic SDK 2.11, and bodies quoted in public issues
(529: anthropics/anthropic-sdk-typescript#616). Since its 2026-10-21 version the API takes no
sampling parameters.
"""

import base64
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from simulator.connection import Request
from simulator.wires.answer import Answer, Call
from simulator.wires.anthropic_request import read
from simulator.wires.asked import Asked
from simulator.wires.base import Error, Wire, sse

STOP_REASONS = {
    "stop": "end_turn", "length": "max_tokens", "refusal": "refusal",
    "content_filter": "refusal", "tool_calls": "tool_use",
}  # fmt: skip


class Anthropic(Wire):
    """`POST …/v1/messages`."""

    name = "anthropic"
    blind: ClassVar = "messages: image and document blocks are not supported by {model}"
    opening = 1
    ping = sse({"type": "ping"}, "ping")
    marks_cache = True
    errors: ClassVar = {
        "invalid": Error(400, "invalid_request_error", "messages: invalid request"),
        "context_window": Error(
            400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"
        ),
        "content_filtered": Error(
            400, "invalid_request_error", "Output blocked by content filtering policy"
        ),
        "usage_limit": Error(
            400, "invalid_request_error",
            "You have reached your specified API usage limits. "
            "You will regain access on 2027-01-01 at 00:00 UTC.",
        ),
        "unauthenticated": Error(401, "authentication_error", "x-api-key header is required"),
        "auth": Error(401, "authentication_error", "invalid x-api-key"),
        "payment": Error(
            402, "billing_error",
            "Your credit balance is too low to access the Anthropic API. "
            "Please go to Plans & Billing to upgrade or purchase credits.",
        ),
        "permission": Error(
            403, "permission_error", "Your API key does not have permission to use this resource."
        ),
        "model_not_found": Error(404, "not_found_error", "model: {model}"),
        "timeout": Error(408, "timeout_error", "Request timed out"),
        "too_large": Error(
            413, "request_too_large", "Request exceeds the maximum allowed number of bytes."
        ),
        "rate_limited": Error(
            429, "rate_limit_error",
            "This request would exceed your organization's rate limit of 50 requests per minute.",
        ),
        "quota": Error(
            429, "rate_limit_error",
            "Your organization has reached its monthly spend limit.",
            "enforced_spend_limit_reached",
        ),
        "server_error": Error(500, "api_error", "Internal server error"),
        "bad_gateway": Error(502, "api_error", "Bad gateway"),
        "unavailable": Error(503, "api_error", "Service unavailable"),
        "gateway_timeout": Error(504, "timeout_error", "Gateway timeout"),
        "overloaded": Error(529, "overloaded_error", "Overloaded"),
    }  # fmt: skip

    def read(self, request: Request, body: dict[str, Any]) -> Asked:
        """Read a messages request."""
        return read(request, body)

    def plain(self, answer: Answer) -> dict[str, Any]:
        """Return a message."""
        content: list[dict[str, Any]] = []
        if answer.thought:
            signed = base64.b64encode(answer.thought.encode()).decode()
            block = {"type": "thinking", "thinking": answer.thought, "signature": signed}
            content.append(block)
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        for call in answer.calls:
            said = {"name": call.name, "input": call.arguments}
            content.append({"type": "tool_use", "id": f"toolu_{call.id}", **said})
        return {
            "id": f"msg_{answer.seq:024d}", "type": "message", "role": "assistant",
            "model": answer.asked.model, "content": content, **_stop(answer),
            "usage": _usage(answer),
        }  # fmt: skip

    def events(self, answer: Answer) -> list[bytes]:
        """Return message_start … message_stop."""
        message = self.plain(answer)
        opening = {
            **message, "content": [], "stop_reason": None, "stop_details": None,
            "usage": {**message["usage"], "output_tokens": 1},
        }  # fmt: skip
        steps: list[dict[str, Any]] = [{"type": "message_start", "message": opening}]
        calls = iter(answer.calls)
        for index, block in enumerate(message["content"]):
            begun, deltas = _block(block, answer, calls)
            at = {"index": index}
            steps.append({"type": "content_block_start", **at, "content_block": begun})
            steps += [{"type": "content_block_delta", **at, "delta": delta} for delta in deltas]
            steps.append({"type": "content_block_stop", **at})
        steps.append({"type": "message_delta", "delta": _stop(answer), "usage": _usage(answer)})
        steps.append({"type": "message_stop"})
        return [sse(step, step["type"]) for step in steps]

    def error_body(self, error: Error, request_id: str, retry_s: float | None) -> dict[str, Any]:
        """Return the error envelope; Anthropic sends Retry-After in a header alone."""
        inner: dict[str, Any] = {"type": error.type, "message": error.message}
        if error.code:
            inner["details"] = {"error_code": error.code}
        return {"type": "error", "error": inner, "request_id": request_id}

    def error_events(self, error: Error, answer: Answer) -> list[bytes]:
        """Return the `error` event."""
        return [sse(self.error_body(error, f"req_{answer.seq:012d}", None), "error")]

    def models(self, names: Sequence[str]) -> dict[str, Any]:
        """Return a page of models."""
        data = [
            {
                "type": "model", "id": name, "display_name": name, "lifecycle": "active",
                "created_at": "2026-01-01T00:00:00Z",
            }
            for name in names
        ]  # fmt: skip
        ends = {"first_id": names[0], "last_id": names[-1]} if names else {}
        return {"data": data, "has_more": False, **ends}

    def headers(self, request_id: str, limit: int, remaining: int) -> dict[str, str]:
        """Return request-id and anthropic-ratelimit-*."""
        reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        return {
            "request-id": request_id,
            "anthropic-ratelimit-requests-limit": str(limit),
            "anthropic-ratelimit-requests-remaining": str(remaining),
            "anthropic-ratelimit-requests-reset": reset,
        }


def _block(
    block: dict[str, Any], answer: Answer, calls: Iterator[Call]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the start of a block in a stream, and its deltas."""
    if block["type"] == "text":
        said = [{"type": "text_delta", "text": piece} for piece in answer.pieces()]
        return {**block, "text": ""}, said
    if block["type"] == "tool_use":
        parts = ["", *next(calls).pieces()]  # the first one is always empty
        said = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        return {**block, "input": {}}, said
    said = [{"type": "thinking_delta", "thinking": piece} for piece in answer.thoughts()]
    said.append({"type": "signature_delta", "signature": block["signature"]})
    return {**block, "thinking": "", "signature": ""}, said


def _stop(answer: Answer) -> dict[str, Any]:
    reason = STOP_REASONS[answer.finish]
    details = {"type": "refusal", "category": "cyber", "explanation": None}
    return {
        "stop_reason": reason, "stop_sequence": None,
        "stop_details": details if reason == "refusal" else None,
    }  # fmt: skip


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "input_tokens": usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }

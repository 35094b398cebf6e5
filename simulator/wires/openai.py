"""
OpenAI's two APIs: Responses and Chat Completions.

Source: the types of the openai SDK 3.52, and bodies quoted in public issues (overload:
Wei-Shaw/sub2api#6631, rate: feder-cr/invisible_playwright_mcp#109, quota: OpenHands#998, filter:
BeehiveInnovations/pal-mcp-server#178).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from simulator.connection import Request
from simulator.wires.base import (
    Answer,
    Asked,
    Error,
    Rejected,
    Wire,
    conversation,
    first_tool,
    sse,
    text_of,
)

INVALID = "invalid_request_error"
QUOTA = Error(
    429, "insufficient_quota",
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, read the docs: "
    "https://platform.openai.com/docs/guides/error-codes/api-errors.",
    "insufficient_quota",
)  # fmt: skip
SERVER_ERROR = Error(
    500, "server_error",
    "The server had an error while processing your request. Sorry about that! You can retry your "
    "request, or contact us through our help center at help.openai.com if the error persists.",
    "server_error",
)  # fmt: skip
OVERLOADED = Error(
    503, "service_unavailable_error",
    "Our servers are currently overloaded. Please try again later.", "server_is_overloaded",
)  # fmt: skip
ERRORS = {
    "invalid": Error(400, INVALID, "Invalid request.", "invalid_value"),
    "context_window": Error(
        400, INVALID,
        "This model's maximum context length is 128000 tokens. However, your messages resulted in "
        "210000 tokens. Please reduce the length of the messages.",
        "context_length_exceeded",
    ),
    "content_filtered": Error(
        400, INVALID,
        "Your request was rejected as a result of our safety system.", "content_policy_violation",
    ),
    "unauthenticated": Error(
        401, INVALID,
        "You didn't provide an API key. You need to provide your API key in an Authorization "
        "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
    ),
    "auth": Error(
        401, INVALID,
        "Incorrect API key provided: {key}. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        "invalid_api_key",
    ),
    "payment": replace(QUOTA, status=402, code="billing_hard_limit_reached"),
    "permission": Error(403, INVALID, "You have insufficient permissions for this operation."),
    "model_not_found": Error(
        404, INVALID,
        "The model `{model}` does not exist or you do not have access to it.", "model_not_found",
    ),
    "timeout": Error(408, "timeout", "Request timed out."),
    "too_large": Error(413, INVALID, "Maximum content size limit exceeded."),
    "rate_limited": Error(
        429, "requests",
        "Rate limit reached for {model} in organization org-simulated on requests per min (RPM): "
        "Limit 500, Used 500, Requested 1. Please try again in 120ms. Visit "
        "https://platform.openai.com/account/rate-limits to learn more.",
        "rate_limit_exceeded",
    ),
    "quota": QUOTA,
    "usage_limit": QUOTA,
    "server_error": SERVER_ERROR,
    "bad_gateway": replace(SERVER_ERROR, status=502),
    "unavailable": OVERLOADED,
    "gateway_timeout": replace(SERVER_ERROR, status=504),
    "overloaded": OVERLOADED,
}  # fmt: skip


class OpenAI(Wire):
    """What Responses and Chat Completions share: errors, models and headers."""

    errors = ERRORS

    def error_body(self, error: Error, request_id: str, retry_s: float | None) -> dict[str, Any]:
        """Return the error envelope; OpenAI tells when to return in headers alone."""
        param = "model" if error.code == "model_not_found" else None
        inner = {"message": error.message, "type": error.type, "param": param, "code": error.code}
        return {"error": inner}

    def models(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the list of models."""
        data = [{"id": n, "object": "model", "created": 0, "owned_by": "simulator"} for n in names]
        return {"object": "list", "data": data}

    def headers(self, request_id: str, limit: int, remaining: int) -> dict[str, str]:
        """Return x-request-id and x-ratelimit-*."""
        return {
            "x-request-id": request_id,
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(remaining),
            "x-ratelimit-reset-requests": f"{60_000 // limit}ms",
        }


class Chat(OpenAI):
    """`POST …/chat/completions`, which every OpenAI-compatible server speaks."""

    name = "openai-chat"

    def read(self, request: Request, body: dict[str, Any]) -> Asked:
        """Read a chat completions request."""
        if not body.get("model"):
            raise Rejected("invalid", "you must provide a model parameter")
        last, size = conversation(body.get("messages"), "messages")
        options = body.get("stream_options")
        return Asked(
            str(body["model"]), last, size, bool(body.get("stream")),
            first_tool(body.get("tools")),
            isinstance(options, dict) and bool(options.get("include_usage")),
        )  # fmt: skip

    def plain(self, answer: Answer) -> dict[str, Any]:
        """Return a chat.completion."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.finish == "refusal":
            message |= {"content": None, "refusal": answer.text}
        if answer.finish == "tool_calls":
            message["tool_calls"] = [_tool_call(answer)]
        choice: dict[str, Any] = {"index": 0, "message": message}
        choice["finish_reason"] = _finish_reason(answer)
        return {**_chat(answer, "chat.completion"), "choices": [choice], "usage": _usage(answer)}

    def events(self, answer: Answer) -> list[bytes]:
        """Return the chunks, the usage if asked for, and [DONE]."""
        part = "refusal" if answer.finish == "refusal" else "content"
        deltas: list[dict[str, Any]] = [{"role": "assistant", part: ""}]
        deltas += [{part: piece} for piece in answer.pieces()]
        if answer.finish == "tool_calls":
            deltas.append({"tool_calls": [{"index": 0, **_tool_call(answer)}]})
        choices: list[list[dict[str, Any]]] = [
            [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
        ]
        choices.append([{"index": 0, "delta": {}, "finish_reason": _finish_reason(answer)}])
        head = _chat(answer, "chat.completion.chunk")
        events = [sse({**head, "choices": choice}) for choice in choices]
        if answer.asked.usage_event:
            events.append(sse({**head, "choices": [], "usage": _usage(answer)}))
        return [*events, b"data: [DONE]\n\n"]

    def error_events(self, error: Error, answer: Answer) -> list[bytes]:
        """Return a chunk that is an error."""
        return [sse(self.error_body(error, "", None))]


class Responses(OpenAI):
    """`POST …/responses`."""

    name = "openai"
    errors: ClassVar = {
        **ERRORS,
        "context_window": Error(
            400, INVALID,
            "Your input exceeds the context window of this model. Please adjust your input and "
            "try again.",
            "context_length_exceeded",
        ),
        "content_filtered": Error(
            400, INVALID,
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy. "
            "Please try again with a different prompt: "
            "https://platform.openai.com/docs/guides/reasoning#advice-on-prompting",
            "invalid_prompt",
        ),
    }  # fmt: skip

    def read(self, request: Request, body: dict[str, Any]) -> Asked:
        """Read a Responses request; its input is a string or a list of items."""
        if not body.get("model"):
            raise Rejected("invalid", "Missing required parameter: 'model'.")
        if "stop" in body:
            raise Rejected("invalid", "Unknown parameter: 'stop'.")
        asked = body.get("input")
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        last, size = conversation(messages, "input")
        size += len(text_of(body.get("instructions")))
        tool = first_tool(body.get("tools"))
        return Asked(str(body["model"]), last, size, bool(body.get("stream")), tool)

    def plain(self, answer: Answer) -> dict[str, Any]:
        """Return a response."""
        status, why = {
            "length": ("incomplete", {"reason": "max_output_tokens"}),
            "content_filter": ("incomplete", {"reason": "content_filter"}),
        }.get(answer.finish, ("completed", None))
        output = [_message(answer, status)] if answer.text else []
        if answer.finish == "tool_calls":
            call = {"name": answer.asked.tool, "arguments": "{}", "status": "completed"}
            ids = {"id": f"fc_{answer.seq:048d}", "call_id": f"call_{answer.seq:024d}"}
            output.append({"type": "function_call", **ids, **call})
        return {
            "id": f"resp_{answer.seq:048d}", "object": "response", "created_at": answer.created_s,
            "status": status, "model": answer.asked.model, "error": None, "incomplete_details": why,
            "instructions": None, "output": output, "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": [], "store": False, "usage": _response_usage(answer),
        }  # fmt: skip

    def events(self, answer: Answer) -> list[bytes]:
        """Return response.created … response.completed or incomplete."""
        final = self.plain(answer)
        steps = self._opening(final)
        for index, item in enumerate(final["output"]):
            inner = _call_steps if item["type"] == "function_call" else _message_steps
            empty: dict[str, Any] = {"arguments": ""} if inner is _call_steps else {"content": []}
            begun = {**item, "status": "in_progress", **empty}
            steps.append(
                {"type": "response.output_item.added", "output_index": index, "item": begun}
            )
            steps += inner(item, index, answer)
            steps.append({"type": "response.output_item.done", "output_index": index, "item": item})
        steps.append({"type": f"response.{final['status']}", "response": final})
        return _numbered(steps)

    def error_events(self, error: Error, answer: Answer) -> list[bytes]:
        """Return an `error` event, then response.failed."""
        body = self.error_body(error, "", None)
        reason = {"code": error.code or "server_error", "message": error.message}
        failed = {**self.plain(answer), "status": "failed", "error": reason, "output": []}
        return _numbered(
            [{"type": "error", **body}, {"type": "response.failed", "response": failed}], first=90
        )

    def _opening(self, final: dict[str, Any]) -> list[dict[str, Any]]:
        begun = {**final, "status": "in_progress", "output": [], "usage": None}
        begun["incomplete_details"] = None
        return [{"type": f"response.{x}", "response": begun} for x in ("created", "in_progress")]


def _finish_reason(answer: Answer) -> str:
    return "stop" if answer.finish == "refusal" else answer.finish


def _tool_call(answer: Answer) -> dict[str, Any]:
    function = {"name": answer.asked.tool, "arguments": "{}"}
    return {"id": f"call_{answer.seq:024d}", "type": "function", "function": function}


def _chat(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.seq:029d}",
        "object": kind,
        "created": answer.created_s,
        "model": answer.asked.model,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _response_usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _message(answer: Answer, status: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": []}
    if answer.finish == "refusal":
        part = {"type": "refusal", "refusal": answer.text}
    return {
        "type": "message", "id": f"msg_{answer.seq:048d}", "role": "assistant", "status": status,
        "content": [part],
    }  # fmt: skip


def _message_steps(item: dict[str, Any], index: int, answer: Answer) -> list[dict[str, Any]]:
    (part,) = item["content"]
    kind = part["type"]
    field = "refusal" if kind == "refusal" else "text"
    logprobs: dict[str, Any] = {} if kind == "refusal" else {"logprobs": []}
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    deltas = [
        {"type": f"response.{kind}.delta", **at, "delta": piece, **logprobs}
        for piece in answer.pieces()
    ]
    return [
        {"type": "response.content_part.added", **at, "part": {**part, field: ""}},
        *deltas,
        {"type": f"response.{kind}.done", **at, field: part[field], **logprobs},
        {"type": "response.content_part.done", **at, "part": part},
    ]


def _call_steps(item: dict[str, Any], index: int, _answer: Answer) -> list[dict[str, Any]]:
    at = {"item_id": item["id"], "output_index": index}
    kind = "response.function_call_arguments"
    return [
        {"type": f"{kind}.delta", **at, "delta": item["arguments"]},
        {"type": f"{kind}.done", **at, "name": item["name"], "arguments": item["arguments"]},
    ]


def _numbered(steps: list[dict[str, Any]], first: int = 0) -> list[bytes]:
    return [
        sse({**step, "sequence_number": number}, step["type"])
        for number, step in enumerate(steps, first)
    ]

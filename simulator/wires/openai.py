"""
The parts that OpenAI's Responses and Chat Completions share: errors, models, headers, schemas.

Source: the types of the openai SDK 3.52, and bodies quoted in public issues (overload:
Wei-Shaw/sub2api#6631, rate: feder-cr/invisible_playwright_mcp#109, quota: OpenHands#998, filter:
BeehiveInnovations/pal-mcp-server#178).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from simulator.schemas import fault_at_openai
from simulator.wires.asked import Tool
from simulator.wires.base import Error, Rejected, Wire
from simulator.wires.reading import (
    IMAGE_TYPES,
    check_choice,
    check_data_url,
    check_url,
    inner,
    tool,
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
    """The errors, models and headers of Responses and Chat Completions."""

    errors = ERRORS

    def error_body(self, error: Error, request_id: str, retry_s: float | None) -> dict[str, Any]:
        """Return the error envelope; OpenAI sends Retry-After in headers alone."""
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


def read_tool(said: dict[str, Any], where: str) -> Tool:
    """
    Read a function offered; a strict one needs a schema of the strict kind.

    Raises:
        Rejected: OpenAI would refuse it.
    """
    offered = tool(said.get("name"), said.get("parameters"), where)
    if said.get("strict") and (fault := fault_at_openai(offered.schema, strict=True)):
        raise Rejected("invalid", f"Invalid schema for function '{offered.name}': {fault}")
    return offered


def read_choice(said: object, tools: tuple[Tool, ...]) -> str | None:
    """
    Read the choice among tools: a word, or the object that names one.

    Raises:
        Rejected: There is no such tool.
    """
    named = inner(said)
    choice = said if isinstance(said, str) else inner(named.get("function", named)).get("name")
    check_choice(choice, tools)
    return choice


def check_schema(said: dict[str, Any]) -> None:
    """
    Refuse a schema of an answer as OpenAI does; `said` has name, schema and strict.

    Raises:
        Rejected: In OpenAI's words.
    """
    name = said.get("name")
    if not name:
        raise Rejected("invalid", "Missing required parameter: 'response_format.name'.")
    if fault := fault_at_openai(said.get("schema"), strict=bool(said.get("strict"))):
        raise Rejected("invalid", f"Invalid schema for response_format '{name}': {fault}")


def prefix(key: object, tools: object, systems: list[str]) -> tuple[tuple[object, bool], ...]:
    """Return the prefix that is always cached: tools and instructions, under the request's key."""
    return (([key, tools, systems], True),) if tools or any(systems) else ()


def speaks(role: object) -> str:
    """Return the speaker in the common terms; `system` and `developer` are `system`."""
    return "system" if role in ("system", "developer") else str(role or "user")


def check_image(url: object, where: str) -> None:
    """
    Refuse an image that is neither at a web address nor in a data URL.

    Raises:
        Rejected: Naming the place.
    """
    if str(url).startswith("data:"):
        check_data_url(url, where, IMAGE_TYPES)
    else:
        check_url(url, where)


def check_arguments(arguments: object, where: str) -> None:
    """
    Refuse a call in the history whose arguments are not valid JSON.

    Raises:
        Rejected: Naming the place.
    """
    try:
        json.loads(arguments if isinstance(arguments, str) else "")
    except ValueError:
        raise Rejected("invalid", f"Invalid '{where}': expected a string of valid JSON.") from None

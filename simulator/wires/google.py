"""
Google's generateContent and streamGenerateContent.

Source: the types of the google-genai SDK 3.4, and bodies quoted in public issues (429:
RooCodeInc/Roo-Code#3883, key: continuedev/continue#10748, model: wwardaww/gnome-gemini-ai#21).
A prompt that is blocked is an answer without candidates here, not an error.
"""

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from simulator.connection import Request
from simulator.wires.answer import Answer
from simulator.wires.asked import Asked
from simulator.wires.base import Error, Rejected, Wire, sse
from simulator.wires.google_request import read

TYPE = "type.googleapis.com/google.rpc."
SERVICE = "generativelanguage.googleapis.com"
FINISH_REASONS = {
    "stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "refusal": "SAFETY",
}  # fmt: skip
RATE = Error(
    429, "RESOURCE_EXHAUSTED",
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.",
    "GenerateRequestsPerMinutePerProjectPerModel",
)  # fmt: skip
QUOTA = replace(RATE, code="GenerateRequestsPerDayPerProjectPerModel")
OVERLOADED = Error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
INTERNAL = Error(
    500, "INTERNAL",
    "An internal error has occurred. Please retry or report in "
    "https://developers.generativeai.google/guide/troubleshooting",
)  # fmt: skip
DEADLINE = Error(
    504, "DEADLINE_EXCEEDED",
    "The request timed out. Please try again.",
)  # fmt: skip


class Google(Wire):
    """`POST …/models/{model}:generateContent` and `:streamGenerateContent?alt=sse`."""

    name = "google"
    ping = b"\r\n"  # its SDK would parse a comment as an answer that is not JSON
    blind: ClassVar = "Image input modality is not enabled for models/{model}"
    errors: ClassVar = {
        "invalid": Error(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
        "context_window": Error(
            400, "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed "
            "(1048576).",
        ),
        "unauthenticated": Error(
            401, "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
            "cookie or other valid authentication credential.",
            "ACCESS_TOKEN_TYPE_UNSUPPORTED",
        ),
        "auth": Error(
            400, "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.", "API_KEY_INVALID",
        ),
        "payment": Error(
            402, "FAILED_PRECONDITION",
            "Your prepayment credits are depleted. Please go to AI Studio to manage your billing.",
        ),
        "permission": Error(
            403, "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers (callers without established identity). "
            "Please use API Key or other form of API consumer identity to call this API.",
        ),
        "model_not_found": Error(
            404, "NOT_FOUND",
            "models/{model} is not found for API version v1, or is not supported for "
            "generateContent. Call ListModels to see the list of available models and their "
            "supported methods.",
        ),
        "timeout": replace(DEADLINE, status=408),
        "too_large": Error(
            413, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes."
        ),
        "rate_limited": RATE,
        "quota": QUOTA,
        "usage_limit": QUOTA,
        "server_error": INTERNAL,
        "bad_gateway": replace(INTERNAL, status=502),
        "unavailable": OVERLOADED,
        "gateway_timeout": DEADLINE,
        "overloaded": OVERLOADED,
    }  # fmt: skip

    def read(self, request: Request, body: dict[str, Any]) -> Asked:
        """Read a generateContent request."""
        return read(request, body)

    def plain(self, answer: Answer) -> dict[str, Any]:
        """Return a GenerateContentResponse."""
        parts = [*_thoughts([answer.thought]), *_texts(answer, [answer.text]), *_calls(answer)]
        return self._response(answer, parts, last=True)

    def events(self, answer: Answer) -> list[bytes]:
        """Return one response per part; the last has the finish reason. A tool call is one part."""
        parts = [
            *_thoughts(answer.thoughts()), *_texts(answer, answer.pieces()), *_calls(answer)
        ]  # fmt: skip
        each = [[part] for part in parts] or [[]]
        last = len(each) - 1
        responses = [self._response(answer, p, last=at == last) for at, p in enumerate(each)]
        return [sse(response, end=b"\r\n\r\n") for response in responses]

    def error_body(self, error: Error, request_id: str, retry_s: float | None) -> dict[str, Any]:
        """Return a google.rpc.Status with its details."""
        details: list[dict[str, Any]] = []
        if error.status == 429 and error.code:
            metric = f"{SERVICE}/generate_requests_per_model"
            violation = {"quotaMetric": metric, "quotaId": error.code}
            details.append({"@type": TYPE + "QuotaFailure", "violations": [violation]})
        elif error.code:
            info = {"reason": error.code, "domain": "googleapis.com"}
            details.append({"@type": TYPE + "ErrorInfo", **info, "metadata": {"service": SERVICE}})
        if retry_s is not None:
            details.append({"@type": TYPE + "RetryInfo", "retryDelay": f"{retry_s:g}s"})
        inner = {"code": error.status, "message": error.message, "status": error.type}
        return {"error": {**inner, "details": details} if details else inner}

    def error_events(self, error: Error, answer: Answer) -> list[bytes]:
        """Return a chunk that is an error."""
        return [sse(self.error_body(error, "", None), end=b"\r\n\r\n")]

    def models(self, names: Sequence[str]) -> dict[str, Any]:
        """Return a page of models."""
        methods = ["generateContent", "countTokens"]
        return {
            "models": [
                {"name": f"models/{name}", "version": "1", "displayName": name,
                 "supportedGenerationMethods": methods}
                for name in names
            ]
        }  # fmt: skip

    def headers(self, request_id: str, limit: int, remaining: int) -> dict[str, str]:
        """Return plain headers: Google sends neither a request id nor limits in them."""
        return {"server-timing": "gfet4t7; dur=1"}

    def retry_form(self, seconds: float) -> str:
        """Return the form of google.rpc.RetryInfo, in the body."""
        return "retry_info"

    def check_key(self, key: str, accepted: Sequence[str] | None) -> None:
        """Reject a missing key as an unregistered caller: 403."""
        if not key and "" not in (accepted or ()):
            raise Rejected("permission")
        super().check_key(key, accepted)

    def _response(
        self, answer: Answer, parts: list[dict[str, Any]], *, last: bool
    ) -> dict[str, Any]:
        usage = answer.usage
        said: dict[str, Any] = {
            "usageMetadata": {
                "promptTokenCount": usage.input_tokens,
                "cachedContentTokenCount": usage.cached_input_tokens,
                "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
                "thoughtsTokenCount": usage.reasoning_tokens,
                "totalTokenCount": usage.input_tokens + usage.output_tokens,
            },
            "modelVersion": answer.asked.model,
            "responseId": f"{answer.seq:022d}",
        }
        if answer.finish == "content_filter":
            return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **said}
        candidate: dict[str, Any] = {"index": 0}
        if last:
            candidate["finishReason"] = FINISH_REASONS[answer.finish]
        if parts:
            candidate["content"] = {"role": "model", "parts": parts}
        return {"candidates": [candidate], **said}


def _thoughts(said: list[str]) -> list[dict[str, Any]]:
    return [{"text": piece, "thought": True} for piece in said if piece]


def _texts(answer: Answer, said: list[str]) -> list[dict[str, Any]]:
    return [{"text": piece} for piece in said if piece and answer.finish != "refusal"]


def _calls(answer: Answer) -> list[dict[str, Any]]:
    """Return the tool calls; the first one has the signature, as Gemini 3 sends it."""
    parts = [{"functionCall": {"name": c.name, "args": c.arguments}} for c in answer.calls]
    signed = base64.b64encode(f"thought of {answer.seq}".encode()).decode()
    return [{**parts[0], "thoughtSignature": signed}, *parts[1:]] if parts else []

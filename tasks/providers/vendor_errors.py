"""
From the vendors' errors to ours: one table for all four wire formats.

A vendor's own words never leave this file: an error message may quote the prompt, or the key.
What goes on is the status, a code if it looks like one, and words of ours.

Sources: the error pages of Anthropic, OpenAI, Gemini, Azure OpenAI and OpenRouter, the error
classes of the three SDKs, and the messages of vLLM and llama.cpp.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
from billiard.exceptions import SoftTimeLimitExceeded

from tasks.errors import (
    AuthenticationFailed,
    Cancelled,
    ConnectionFailed,
    ContentFiltered,
    ContextWindowExceeded,
    GarbledAnswer,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    ProviderError,
    ProviderTimeout,
    QuotaExhausted,
    RateLimited,
    ServerError,
    TruncatedAnswer,
)
from tasks.providers.retry_after import retry_after_s


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: an error that has all of these is one of ours; an empty condition always holds."""

    error: type[ProviderError]
    says: str
    statuses: frozenset[int] = frozenset()
    code: str = ""
    """A pattern for the vendor's codes and types."""
    message: str = ""
    """A pattern for its words, where there is no code to go by."""

    def holds(self, status: int | None, codes: list[str], message: str) -> bool:
        return (
            (not self.statuses or status in self.statuses)
            and (not self.code or any(re.search(self.code, code) for code in codes))
            and (not self.message or bool(re.search(self.message, message, re.IGNORECASE)))
        )


_PROMPT = frozenset({400, 403, 413, 422})
"""Where vendors put what they have against a prompt."""

RULES = (
    # The account's money first: it comes as 400, 402, 403 and 429.
    Rule(QuotaExhausted, "the account has no credit left", frozenset({402})),
    Rule(
        QuotaExhausted,
        "the account has no quota left",
        code=r"insufficient_quota|billing|spend_limit_reached|PerDay",
    ),
    Rule(
        QuotaExhausted,
        "the account has no credit left",
        frozenset({400, 403, 429}),
        message=r"credit balance is too low|reached your specified .*usage limits",
    ),
    # The model and the prompt before 403: one prompt must not look like a bad key.
    Rule(ModelNotFound, "it does not know the model, or the path", frozenset({404})),
    Rule(
        ModelNotFound,
        "this account may not use the model",
        frozenset({400, 403}),
        code=r"model_not_found|DeploymentNotFound",
    ),
    Rule(ModelNotFound, "no such model", frozenset({400}), message=r"not a valid model"),
    Rule(
        ContextWindowExceeded,
        "the prompt is longer than the model's window",
        _PROMPT,
        code=r"context_length_exceeded|exceed_context_size|string_above_max_length",
    ),
    Rule(
        ContextWindowExceeded,
        "the prompt is longer than the model's window",
        _PROMPT,
        message=r"prompt is too long|context (window|size|length|limit)"
        r"|exceeds the maximum number of tokens",
    ),
    Rule(
        ContentFiltered,
        "it refuses this prompt",
        code=r"content_policy|content_filter|policy_violation|invalid_prompt|moderation"
        r"|(bio|cyber)_policy|ResponsibleAIPolicyViolation",
    ),
    Rule(
        ContentFiltered,
        "it refuses this prompt",
        _PROMPT,
        message=r"content filter|content management policy|flagged|usage polic",
    ),
    Rule(AuthenticationFailed, "it does not accept the key", frozenset({401, 403})),
    Rule(
        AuthenticationFailed,
        "it does not accept the key",
        frozenset({400}),
        code=r"API_KEY_INVALID|invalid_api_key",
    ),
    Rule(RateLimited, "it asks to slow down", frozenset({429})),
    Rule(RateLimited, "it asks to slow down", code=r"rate_limit_exceeded"),
    Rule(ProviderTimeout, "it gave up waiting for itself", frozenset({408, 504})),
    Rule(Overloaded, "it is overloaded", frozenset({503, 529})),
    Rule(Overloaded, "it is overloaded", code=r"overloaded|slow_down"),
    # The SDKs themselves retry a conflict like a 5xx; 499 is Google's CANCELLED.
    Rule(ServerError, "it failed", frozenset({409, 425, 499, *range(500, 600)})),
    Rule(
        ConnectionFailed,
        "something else answers there; check base_url and proxies",
        frozenset({*range(300, 400), 405, 407, 421, 426}),
    ),
    Rule(InvalidRequest, "the request is at fault", frozenset(range(400, 500))),
)


_RAISED: tuple[tuple[type[Exception], type[ProviderError], str], ...] = (
    (SoftTimeLimitExceeded, Cancelled, "the task's time limit ended the call"),
    (httpx2.ConnectTimeout, ProviderTimeout, "no connection in time"),
    (httpx2.TimeoutException, ProviderTimeout, "no whole answer in time"),
    (httpx2.TransportError, ConnectionFailed, "the connection failed"),
    (UnicodeEncodeError, InvalidRequest, "the request cannot be written as UTF-8"),
)


def translated(provider: str, error: Exception) -> ProviderError:
    """
    Turn what an SDK raised into the error whose verdict fits.

    Args:
        provider: The provider's name, for the message.
        error: What came out of the SDK, its causes included: anthropic wraps even a task's time
            limit into a connection error.
    """
    for cause in _causes(error):
        if isinstance(cause, ProviderError):
            return _ours(provider, cause)
        if known := _known(provider, cause):
            return known
    return GarbledAnswer(f"{provider}: the answer could not be read ({type(error).__name__})")


def _ours(provider: str, error: ProviderError) -> ProviderError:
    """Put the name to what our transport raised under the SDK; an adapter has done so."""
    if str(error).startswith(provider):
        return error
    return type(error)(f"{provider}: {error}", error.details)


def _known(provider: str, cause: BaseException) -> ProviderError | None:
    if event := _event(cause):
        return _from(provider, event, _status(event), {})
    if isinstance(response := getattr(cause, "response", None), httpx2.Response):
        return _from_response(provider, response)
    if isinstance(cause, json.JSONDecodeError):
        return _from_bad_json(provider, cause.doc)
    for raised, meant, says in _RAISED:
        if isinstance(cause, raised):
            return meant(f"{provider}: {says} ({type(cause).__name__})")
    return None


def from_body(provider: str, body: object, status: int | None = None) -> ProviderError:
    """Turn an error that came inside an answer with status 200 into ours."""
    return _from(provider, body, status, {})


def _causes(error: BaseException) -> Iterator[BaseException]:
    # Not __context__: a caller may be handling another provider's error at this moment.
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _event(error: BaseException) -> dict[str, Any] | None:
    """Find what an error event in a stream said; its HTTP status was 200 long before."""
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response) and not response.is_success:
        return None
    # anthropic keeps the whole event, openai the inner object (and no response), google a dict.
    said = getattr(error, "body", None) or getattr(error, "details", None)
    if not isinstance(said, dict):
        return None
    if isinstance(said.get("error"), dict):
        return said
    return {"error": said} if response is None else None


def _status(event: dict[str, Any]) -> int | None:
    code = event["error"].get("code")
    return code if isinstance(code, int) else None


def _from_response(provider: str, response: httpx2.Response) -> ProviderError:
    try:
        body = json.loads(response.content)
    except (ValueError, httpx2.StreamError):
        body = None  # a gateway's HTML page, or an unread stream
    if response.is_success:
        return GarbledAnswer(f"{provider}: the answer has the wrong shape", status=200)
    return _from(provider, body, response.status_code, response.headers)


def _from(provider: str, body: Any, status: int | None, headers: Any) -> ProviderError:
    if isinstance(body, list) and body:  # Gemini's OpenAI-compatible endpoint wraps it
        body = body[0]
    said = body.get("error") if isinstance(body, dict) else None
    codes = list(_codes(said))
    message = said.get("message") if isinstance(said, dict) else said
    rule = next(
        (rule for rule in RULES if rule.holds(status, codes, str(message or ""))),
        Rule(ServerError, "it failed"),
    )
    shown = ", ".join([*([str(status)] if status else []), *filter(_is_word, codes)])
    at = said.get("param") if isinstance(said, dict) else None
    return rule.error(
        f"{provider} answered {shown or 'an error'}: {rule.says}"
        + (f", at {at}" if isinstance(at, str) and _is_word(at) else ""),
        status=status,
        request_id=headers.get("request-id") or headers.get("x-request-id"),
        retry_after_s=retry_after_s(headers, body),
    )


def _codes(said: Any) -> Iterator[str]:
    """Find the codes: `type` and `code`, Google's `status` and details, Anthropic's details."""
    if not isinstance(said, dict):
        return
    details = said.get("details")
    found = [said.get("type"), said.get("code"), said.get("status")]
    if isinstance(details, dict):
        found.append(details.get("error_code"))
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            found.append(detail.get("reason"))
            violations = detail.get("violations")
            for violation in violations if isinstance(violations, list) else ():
                found.append(violation.get("quotaId") if isinstance(violation, dict) else None)
    yield from (code for code in found if isinstance(code, str))


def _is_word(code: str) -> bool:
    """Tell a code from anything else a server may have put there: keys have digits or dashes."""
    return (
        len(code) <= 48 and re.fullmatch(r"[A-Za-z]+([_.][A-Za-z]+|\[\d{1,3}\])*", code) is not None
    )


def _from_bad_json(provider: str, text: str) -> ProviderError:
    if text.lstrip().startswith("{") and not text.rstrip().endswith("}"):
        return TruncatedAnswer(f"{provider}: the answer is cut off")
    return GarbledAnswer(f"{provider}: the answer is not JSON")

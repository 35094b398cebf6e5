"""
Translate the vendors' errors into ours, for all four wire formats.

`bodies` reads an error's body, `rules` is the table of its meanings. A vendor's own words never
leave this file: an error message may quote the prompt, or the key. Our errors hold the status, a
code if it looks like one, and our own words.
"""

import json
import re
from collections.abc import Iterator, Mapping

import httpx2
from billiard.exceptions import SoftTimeLimitExceeded

from breakwater.errors import (
    Cancelled,
    ConnectionFailed,
    GarbledAnswer,
    InvalidRequest,
    ProviderError,
    ProviderTimeout,
    TruncatedAnswer,
    UnknownError,
)
from tasks.providers.errors.bodies import ErrorBody, read_error
from tasks.providers.errors.retry_after import retry_after_s
from tasks.providers.errors.rules import rule_for
from tasks.providers.http.host import host_fault

_BY_EXCEPTION: tuple[tuple[type[Exception], type[ProviderError], str], ...] = (
    (SoftTimeLimitExceeded, Cancelled, "the task's time limit ended the call"),
    (httpx2.ConnectTimeout, ProviderTimeout, "no connection in time"),
    (httpx2.TimeoutException, ProviderTimeout, "no whole answer in time"),
    (httpx2.TransportError, ConnectionFailed, "the connection failed"),
    (UnicodeEncodeError, InvalidRequest, "the request cannot be written as UTF-8"),
)


def translate_error(provider: str, error: Exception) -> ProviderError:
    """
    Return our error for an SDK's, with the verdict that fits; never raises.

    Args:
        provider: The provider's name, for the message.
        error: The error that the SDK raised. Its causes are read too: anthropic wraps even a
            task's time limit into a connection error.
    """
    try:
        return _translated(provider, error)
    except Exception as bug:  # noqa: BLE001 - the text may be anything; a verdict is needed
        message = f"{provider}: the error could not be read ({type(bug).__name__})"
        return GarbledAnswer(message)


def _translated(provider: str, error: Exception) -> ProviderError:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ProviderError):
            return _with_name(provider, cause)
        if answered := _from_cause(provider, cause):
            return answered
    for cause in causes:  # before its wrapper: httpx2 wraps an untrusted certificate as a refusal
        if fault := host_fault(cause):
            return _with_name(provider, fault)
    for cause in causes:
        for sdk_error, error_class, meaning in _BY_EXCEPTION:
            if isinstance(cause, sdk_error):
                return error_class(f"{provider}: {meaning} ({type(cause).__name__})")
    return GarbledAnswer(f"{provider}: the answer could not be read ({type(error).__name__})")


def _with_name(provider: str, error: ProviderError) -> ProviderError:
    """Return an error of our transport with the provider's name; an adapter's has it already."""
    if str(error).startswith(provider):
        return error
    return type(error)(f"{provider}: {error}", error.details)


def _from_cause(provider: str, cause: BaseException) -> ProviderError | None:
    """Read the provider's answer, if an exception holds one."""
    if event := _event_body(cause):
        return error_from_body(provider, event)
    if isinstance(response := getattr(cause, "response", None), httpx2.Response):
        return error_from_response(provider, response)
    if isinstance(cause, json.JSONDecodeError):
        return _from_bad_json(provider, cause.doc)
    return None


def error_from_body(provider: str, body: object, status: int | None = None) -> ProviderError:
    """
    Return our error for one inside an answer with status 200, or inside a stream.

    Args:
        provider: The provider's name, for the message.
        body: The error in any shape, best with its surroundings: `{"error": {…}}`.
        status: The status that it stands for; None: read it from the codes.
    """
    return _from_error_body(provider, body, status, {})


def error_from_response(provider: str, response: httpx2.Response) -> ProviderError:
    """Return our error for an HTTP answer; without a body, if that has not been read."""
    if response.is_success:
        return GarbledAnswer(f"{provider}: the answer has the wrong shape", status=200)
    try:
        content = response.content
    except httpx2.StreamError:
        content = b""
    return _from_error_body(provider, content, response.status_code, response.headers)


def _causes(error: BaseException) -> Iterator[BaseException]:
    # Not __context__: the caller may be handling another provider's error.
    cause: BaseException | None = error
    for _ in range(20):  # causes can form a circle
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _event_body(error: BaseException) -> object:
    """Return the body of an error event in a stream, whose HTTP status was 200."""
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response) and not response.is_success:
        return None
    # anthropic keeps the whole event, openai the inner object (and no response), google a dict.
    error_body = getattr(error, "body", None) or getattr(error, "details", None)
    if isinstance(error_body, dict) and (response is None or error_body.get("error")):
        return error_body
    if isinstance(error_body, str) and response is None:
        return error_body
    return None


def _from_error_body(
    provider: str, body: object, status: int | None, headers: Mapping[str, str]
) -> ProviderError:
    error_body = read_error(body)
    rule = rule_for(status, error_body)
    status = status or _status_in_codes(error_body)
    names = [str(status)] * bool(status) + [code for code in error_body.codes[:4] if _is_word(code)]
    message = f"{provider} answered {', '.join(names) or 'an error'}: {rule.meaning}"
    if error_body.param and _is_word(error_body.param):
        message += f", at {error_body.param}"
    wait_s = None
    if rule.error is not UnknownError:
        wait_s = retry_after_s(headers, error_body)
    return rule.error(message, status=status, request_id=_request_id(headers), retry_after_s=wait_s)


def _status_in_codes(error_body: ErrorBody) -> int | None:
    """Return the HTTP status among the error's codes; None without one."""
    numbers = (int(code) for code in error_body.codes if re.fullmatch(r"[45][0-9]{2}", code))
    return next(numbers, None)


def _request_id(headers: Mapping[str, str]) -> str | None:
    request_id = headers.get("request-id") or headers.get("x-request-id")
    if not request_id:
        return None
    return request_id[:200]


def _is_word(code: str) -> bool:
    """Return whether a text is a code and not, say, a key: keys have digits or dashes."""
    return (
        len(code) <= 48 and re.fullmatch(r"[A-Za-z]+([_.][A-Za-z]+|\[\d{1,3}\])*", code) is not None
    )


def _from_bad_json(provider: str, text: str) -> ProviderError:
    if text.lstrip().startswith("{") and not text.rstrip().endswith("}"):
        return TruncatedAnswer(f"{provider}: the answer is cut off")
    return GarbledAnswer(f"{provider}: the answer is not JSON")

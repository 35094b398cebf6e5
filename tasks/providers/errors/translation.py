"""
From the vendors' errors to ours, for all four wire formats.

`error_bodies` reads what a server says, `error_rules` is the table of what it means. A vendor's own
words never leave this file: an error message may quote the prompt, or the key. What goes on is the
status, a code if it looks like one, and words of ours.
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
    Turn what an SDK raised into the error whose verdict fits; never raises.

    Args:
        provider: The provider's name, for the message.
        error: What came out of the SDK, its causes included: anthropic wraps even a task's time
            limit into a connection error.
    """
    try:
        return _translated(provider, error)
    except Exception as bug:  # noqa: BLE001 - the error's text is a stranger's; a verdict is due
        message = f"{provider}: the error could not be read ({type(bug).__name__})"
        return GarbledAnswer(message)


def _translated(provider: str, error: Exception) -> ProviderError:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ProviderError):
            return _with_name(provider, cause)
        if answered := _from_cause(provider, cause):
            return answered
    for cause in causes:  # before what wraps it: httpx2 calls an untrusted certificate a refusal
        if fault := host_fault(cause):
            return _with_name(provider, fault)
    for cause in causes:
        for sdk_error, error_class, meaning in _BY_EXCEPTION:
            if isinstance(cause, sdk_error):
                return error_class(f"{provider}: {meaning} ({type(cause).__name__})")
    return GarbledAnswer(f"{provider}: the answer could not be read ({type(error).__name__})")


def _with_name(provider: str, error: ProviderError) -> ProviderError:
    """Put the name to what our transport raised under the SDK; an adapter has done so."""
    if str(error).startswith(provider):
        return error
    return type(error)(f"{provider}: {error}", error.details)


def _from_cause(provider: str, cause: BaseException) -> ProviderError | None:
    """Read what the provider said, if it said anything."""
    if event := _event_body(cause):
        return error_from_body(provider, event)
    if isinstance(response := getattr(cause, "response", None), httpx2.Response):
        return error_from_response(provider, response)
    if isinstance(cause, json.JSONDecodeError):
        return _from_bad_json(provider, cause.doc)
    return None


def error_from_body(provider: str, body: object, status: int | None = None) -> ProviderError:
    """
    Turn an error that came inside an answer with status 200, or inside a stream, into ours.

    Args:
        provider: The provider's name, for the message.
        body: The error in any shape, best with all that stands around it: `{"error": {…}}`.
        status: The status it stands for, where the caller knows one; else its codes say.
    """
    return _from_error_body(provider, body, status, {})


def error_from_response(provider: str, response: httpx2.Response) -> ProviderError:
    """Turn an HTTP answer with an error's status into ours; its body has been read, or is not."""
    if response.is_success:
        return GarbledAnswer(f"{provider}: the answer has the wrong shape", status=200)
    try:
        content = response.content
    except httpx2.StreamError:
        content = b""
    return _from_error_body(provider, content, response.status_code, response.headers)


def _causes(error: BaseException) -> Iterator[BaseException]:
    # Not __context__: a caller may be handling another provider's error at this moment.
    cause: BaseException | None = error
    for _ in range(20):  # a chain can be a circle
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _event_body(error: BaseException) -> object:
    """Find what an error event in a stream said; its HTTP status was 200 long before."""
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response) and not response.is_success:
        return None
    # anthropic keeps the whole event, openai the inner object (and no response), google a dict.
    error_body = getattr(error, "body", None) or getattr(error, "details", None)
    if isinstance(error_body, dict) and (response is None or error_body.get("error")):
        return error_body
    return error_body if isinstance(error_body, str) and response is None else None


def _from_error_body(
    provider: str, body: object, status: int | None, headers: Mapping[str, str]
) -> ProviderError:
    error_body = read_error(body)
    rule = rule_for(status, error_body)
    status = status or _status_in_codes(error_body)
    shown = ", ".join([*([str(status)] if status else []), *filter(_is_word, error_body.codes[:4])])
    at = f", at {error_body.param}" if error_body.param and _is_word(error_body.param) else ""
    return rule.error(
        f"{provider} answered {shown or 'an error'}: {rule.meaning}{at}",
        status=status,
        request_id=_request_id(headers),
        retry_after_s=None if rule.error is UnknownError else retry_after_s(headers, error_body),
    )


def _status_in_codes(error_body: ErrorBody) -> int | None:
    """Return the HTTP status that the error itself names, None if it names none."""
    numbers = (int(code) for code in error_body.codes if re.fullmatch(r"[45][0-9]{2}", code))
    return next(numbers, None)


def _request_id(headers: Mapping[str, str]) -> str | None:
    request_id = headers.get("request-id") or headers.get("x-request-id")
    return request_id[:200] if request_id else None


def _is_word(code: str) -> bool:
    """Tell a code from anything else a server may have put there: keys have digits or dashes."""
    return (
        len(code) <= 48 and re.fullmatch(r"[A-Za-z]+([_.][A-Za-z]+|\[\d{1,3}\])*", code) is not None
    )


def _from_bad_json(provider: str, text: str) -> ProviderError:
    if text.lstrip().startswith("{") and not text.rstrip().endswith("}"):
        return TruncatedAnswer(f"{provider}: the answer is cut off")
    return GarbledAnswer(f"{provider}: the answer is not JSON")

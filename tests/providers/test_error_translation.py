"""Errors in the words of vendors the simulator does not play, and words that must not pass."""

from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from breakwater import errors
from breakwater.errors import ProviderError
from tasks.providers.errors.translation import translate_error
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import request


def openai_error(message: str = "", **fields: Any) -> dict[str, Any]:
    """Return an error in OpenAI's envelope."""
    return {"error": {"message": message, **fields}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        # vLLM, llama.cpp
        (400, openai_error("This model's maximum context length is 4096 tokens. However, you"),
         errors.ContextWindowExceeded),
        (400, openai_error(type="exceed_context_size_error"), errors.ContextWindowExceeded),
        (503, openai_error("Loading model", type="unavailable_error", code=503), errors.Overloaded),
        # Azure
        (400, openai_error("... content management policy ...", code="content_filter"),
         errors.ContentFiltered),
        (404, openai_error(code="DeploymentNotFound"), errors.ModelNotFound),
        # OpenRouter
        (402, openai_error("Insufficient credits", code=402), errors.QuotaExhausted),
        (403, openai_error("Your input was flagged", code=403), errors.ContentFiltered),
        (400, openai_error("foo/bar is not a valid model ID", code=400), errors.ModelNotFound),
        # OpenAI
        (403, openai_error(code="model_not_found"), errors.ModelNotFound),
        (429, openai_error(code="insufficient_quota"), errors.QuotaExhausted),
        (429, openai_error(code="billing_hard_limit_reached"), errors.QuotaExhausted),
        (500, openai_error(), errors.ServerError),
        # Gateways in between
        (403, "<html>Forbidden</html>", errors.UnknownError),
        (502, "<html>Bad gateway</html>", errors.ServerError),
        (599, [], errors.ServerError),
        (307, "", errors.ConnectionFailed),
        (405, "", errors.ConnectionFailed),
        (499, {}, errors.ServerError),
        (409, {}, errors.ServerError),
        (418, {}, errors.InvalidRequest),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, errors.InvalidRequest),
        (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], errors.RateLimited),
    ],
)  # fmt: skip
def test_what_other_servers_say_is_understood(
    status: int, body: object, expected: type[ProviderError], server: Loopback, build: Build
) -> None:
    """`openai-chat` meets servers of every kind."""
    server.answer(body.encode() if isinstance(body, str) else body, status)

    with pytest.raises(ProviderError) as caught:
        build("openai-chat", server.url).complete(request())

    assert type(caught.value) is expected
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("adapter", "status", "body", "expected"),
    [
        ("anthropic", 400, {"error": {"message": "Your credit balance is too low to access"}},
         errors.QuotaExhausted),
        ("anthropic", 429, {"error": {"details": {"error_code": "enforced_spend_limit_reached"}}},
         errors.QuotaExhausted),
        ("anthropic", 400, {"error": {"message": "input length and `max_tokens` exceed context "
                                                 "limit: 199000 + 4096 > 200000"}},
         errors.ContextWindowExceeded),
        ("google", 429, {"error": {"details": [{"violations": [
            {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}},
         errors.QuotaExhausted),
        ("google", 429, {"error": {"details": [{"violations": [
            {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}]}}, errors.RateLimited),
        ("google", 400, {"error": {"details": [{"reason": "API_KEY_INVALID"}]}},
         errors.AuthenticationFailed),
    ],
)  # fmt: skip
def test_what_only_one_vendor_says_is_understood(
    adapter: str, status: int, body: object, expected: type[ProviderError],
    server: Loopback, build: Build,
) -> None:  # fmt: skip
    """Spent money and bad keys come under the statuses of other errors."""
    server.answer(body, status)

    with pytest.raises(ProviderError) as caught:
        build(adapter, server.url).complete(request())

    assert type(caught.value) is expected


def test_an_error_says_who_what_and_where(server: Loopback, build: Build) -> None:
    """Status, codes, the parameter at fault, the request's id."""
    body = openai_error("no", type="invalid_request_error", param="messages[0].content")
    server.answer(body, 400, x_request_id="req_7")

    with pytest.raises(errors.InvalidRequest) as caught:
        build("openai-chat", server.url).complete(request())

    assert str(caught.value) == (
        "my-openai-chat answered 400, invalid_request_error: it does not take the request, "
        "at messages[0].content"
    )
    assert caught.value.request_id == "req_7"


def test_a_time_limit_wrapped_by_an_sdk_is_nobodys_fault() -> None:
    """anthropic turns Celery's soft time limit into a connection error, its cause."""
    error = ConnectionError("Connection error.")
    error.__cause__ = SoftTimeLimitExceeded()

    assert type(translate_error("claude", error)) is errors.Cancelled


def test_an_error_the_caller_is_handling_is_not_mistaken_for_the_cause(
    server: Loopback, build: Build
) -> None:
    """A second provider asked from an `except` block fails for reasons of its own."""
    server.answer({}, 500)
    provider = build("anthropic", server.url)

    with pytest.raises(errors.ServerError):  # noqa: PT012 - the handler is the point
        try:
            raise errors.Cancelled("the first provider's")
        except errors.Cancelled:
            provider.complete(request())

"""What goes wrong on order: error bodies, broken answers, broken connections."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import anthropic
import httpx2
import openai
import pytest
from google.genai import errors as google

from simulator.client import Simulator
from simulator.wires.base import ERROR_KINDS
from tests.support.vendor_sdks import MODEL, Caller, status_of
from tests.support.waiting import wait_until

Build = Callable[..., Caller]
STATUSES = {
    "anthropic": {
        "invalid": 400, "context_window": 400, "content_filtered": 400, "usage_limit": 400,
        "unauthenticated": 401, "auth": 401, "payment": 402, "permission": 403,
        "model_not_found": 404, "timeout": 408, "too_large": 413, "rate_limited": 429,
        "quota": 429, "server_error": 500, "bad_gateway": 502, "unavailable": 503,
        "gateway_timeout": 504, "overloaded": 529,
    },
}  # fmt: skip
STATUSES["openai"] = {**STATUSES["anthropic"], "usage_limit": 429, "overloaded": 503}
STATUSES["openai-chat"] = STATUSES["openai"]
STATUSES["google"] = {**STATUSES["openai"], "auth": 400}
del STATUSES["google"]["content_filtered"]
CONNECTION_ERRORS = (anthropic.APIConnectionError, openai.APIConnectionError, httpx2.TransportError)
TIMEOUTS = (anthropic.APITimeoutError, openai.APITimeoutError, httpx2.TimeoutException)


def test_every_kind_of_error_arrives_with_its_status(
    sim: Simulator, call: Build, wire: str
) -> None:
    """A kind is sent with the status this vendor gives it, and the log names it."""
    caller, seen = call(), {}

    for kind in STATUSES[wire]:
        sim.fault("it", kind)
        with pytest.raises(Exception) as failed:  # noqa: PT011 - of three SDKs
            caller.said("hello")
        seen[kind] = status_of(failed.value)

    assert seen == STATUSES[wire]
    assert {(hit["fault"], hit["status"]) for hit in sim.hits("it")} == set(seen.items())
    assert ERROR_KINDS - seen.keys() <= {"content_filtered"}


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 413, 418, 429, 500, 507, 529])
def test_a_bare_status_takes_the_body_that_fits_it(
    sim: Simulator, call: Build, status: int
) -> None:
    """A status without a kind is sent as it is, with a body of the vendor's shape."""
    sim.fault("it", status=status)

    with pytest.raises(
        (anthropic.APIStatusError, openai.APIStatusError, google.APIError)
    ) as failed:
        call().said("hello")

    assert status_of(failed.value) == status


def test_bodies_carry_what_tells_errors_of_one_status_apart(sim: Simulator) -> None:
    """Codes tell a spent quota from a rate, and a bad key from a bad call."""
    told = {}

    for label, path, kind in [
        ("claude", "v1/messages", "quota"),
        ("gpt", "v1/responses", "quota"),
        ("gpt", "v1/responses", "rate_limited"),
        ("gpt", "v1/responses", "content_filtered"),
        ("local", "v1/chat/completions", "context_window"),
        ("gemini", f"v1/models/{MODEL}:generateContent", "quota"),
        ("gemini", f"v1/models/{MODEL}:generateContent", "auth"),
    ]:
        sim.fault(label, kind)
        told[label, kind] = httpx2.post(f"{sim.url(label)}/{path}", json={}).json()["error"]

    assert told["claude", "quota"]["details"]["error_code"] == "enforced_spend_limit_reached"
    assert told["gpt", "quota"]["code"] == "insufficient_quota"
    assert told["gpt", "rate_limited"]["code"] == "rate_limit_exceeded"
    assert told["gpt", "content_filtered"]["code"] == "invalid_prompt"
    assert told["local", "context_window"]["code"] == "context_length_exceeded"
    assert "PerDay" in told["gemini", "quota"]["details"][0]["violations"][0]["quotaId"]
    assert told["gemini", "auth"]["details"][0]["reason"] == "API_KEY_INVALID"


def test_filtered_content_is_an_answer_without_candidates_at_google(sim: Simulator) -> None:
    """Google blocks a prompt with status 200 and a block reason."""
    sim.fault("gemini", "content_filtered")

    answer = httpx2.post(
        f"{sim.url('gemini')}/v1/models/{MODEL}:generateContent",
        headers={"x-goog-api-key": "k"},
        json={"contents": [{"parts": [{"text": "x"}]}]},
    ).json()

    assert answer["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
    assert "candidates" not in answer


@pytest.mark.parametrize(
    ("form", "header", "value"),
    [
        ("seconds", "retry-after", "3"),
        ("fraction", "retry-after", "2.500"),
        ("ms", "retry-after-ms", "2500"),
        (None, "retry-after", "2.500"),
    ],
)
def test_retry_after_is_told_in_the_form_ordered(
    sim: Simulator, form: str | None, header: str, value: str
) -> None:
    """Seconds are rounded up, fractions and milliseconds are exact; None is the vendor's usual."""
    sim.fault("claude", "rate_limited", retry_after=2.5, retry_after_form=form)

    response = httpx2.post(f"{sim.url('claude')}/v1/messages", json={})

    told = {name: response.headers[name] for name in response.headers if "retry-after" in name}
    assert told == {header: value}


def test_retry_after_can_be_a_date(sim: Simulator) -> None:
    """RFC 9110's HTTP date, in GMT, never before the seconds are over."""
    sim.fault("claude", status=503, retry_after=20, retry_after_form="date")
    before = datetime.now(UTC)

    response = httpx2.post(f"{sim.url('claude')}/v1/messages", json={})

    wait_s = (parsedate_to_datetime(response.headers["retry-after"]) - before).total_seconds()
    assert 20 <= wait_s < 30


def test_google_tells_when_to_return_in_the_body(sim: Simulator) -> None:
    """google.rpc.RetryInfo stands among the details, and no header tells it."""
    sim.fault("gemini", "rate_limited", retry_after=26)

    response = httpx2.post(f"{sim.url('gemini')}/v1/models/{MODEL}:generateContent", json={})

    assert response.json()["error"]["details"][-1]["retryDelay"] == "26s"
    assert "retry-after" not in response.headers


@pytest.mark.parametrize("kind", ["reset", "reset_early", "reset_midway", "truncate"])
def test_a_broken_connection_is_a_connection_error(sim: Simulator, call: Build, kind: str) -> None:
    """Resets before and after the request, in mid-answer, and an answer shorter than its length."""
    sim.fault("it", kind)

    with pytest.raises(CONNECTION_ERRORS):
        call().said("hello")

    assert [hit["fault"] for hit in sim.hits("it")] == [kind]


@pytest.mark.parametrize("kind", ["hang", "trickle"])
def test_an_answer_that_does_not_come_is_a_timeout(sim: Simulator, call: Build, kind: str) -> None:
    """The call is taken and the answer does not come, or comes byte by byte."""
    sim.fault("it", kind, interval_s=30)

    with pytest.raises(TIMEOUTS):
        call(timeout_s=0.3).said("hello")


def test_a_trickle_comes_byte_by_byte_and_whole(sim: Simulator, call: Build) -> None:
    """A trickling answer outlives every timeout that is counted per read."""
    sim.fault("it", "trickle", interval_s=0.001)

    assert call(timeout_s=5).said("hello").text.startswith("[it] answer")


def test_a_client_that_leaves_ends_its_call(sim: Simulator, call: Build) -> None:
    """A call whose client has gone is no longer in flight, and the log says so."""
    sim.fault("it", "hang")

    with pytest.raises(TIMEOUTS):
        call(timeout_s=0.3).said("hello")

    wait_until(lambda: sim.in_flight("it") == 0)
    (hit,) = sim.hits("it")
    assert hit["client_gone"]
    assert hit["status"] is None
    assert hit["ended_at_ms"] > hit["started_at_ms"]


@pytest.mark.parametrize("kind", ["garbage", "empty", "cut"])
def test_what_is_not_json_does_not_parse(sim: Simulator, wire: str, call: Build, kind: str) -> None:
    """Status 200 with something else, nothing, or half a JSON text."""
    sim.fault("it", kind)

    if kind == "empty" and wire == "google":
        assert call().said("hello").text == ""  # its SDK takes an empty body for an empty answer
    else:
        with pytest.raises(json.JSONDecodeError):
            call().said("hello")


def test_json_of_another_shape_and_pages_come_with_status_200(sim: Simulator) -> None:
    """The wrong shape is JSON; the page of a proxy is HTML."""
    sim.fault("claude", "wrong_shape")
    shape = httpx2.post(f"{sim.url('claude')}/v1/messages", json={})
    sim.fault("claude", "html")
    page = httpx2.post(f"{sim.url('claude')}/v1/messages", json={})

    assert (shape.status_code, shape.json()) == (200, {"ok": True})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html")


def test_an_answer_can_say_nothing(sim: Simulator, call: Build, wire: str) -> None:
    """`no_text` is a whole answer, finished well, without text."""
    sim.fault("it", "no_text")

    for answer in (call().said("hello"), *([] if wire == "openai" else [call().streamed("hello")])):
        assert answer.text == ""
        assert answer.finish in ("end_turn", "completed", "stop", "STOP")


@pytest.mark.parametrize("kind", ["refusal", "content_filter", "length"])
def test_a_fault_can_be_the_way_an_answer_ends(sim: Simulator, call: Build, kind: str) -> None:
    """These kinds change one label's finish for as long as the fault lasts."""
    caller = call()

    well = caller.said("hello")
    sim.fault("it", kind)
    ill = caller.said("hello")

    assert (ill.finish, ill.text) != (well.finish, well.text)


def test_a_cut_stream_ends_without_its_terminal_event(sim: Simulator) -> None:
    """The body ends cleanly, but the last event is missing: only a careful reader notices."""
    gpt = openai.OpenAI(api_key="k", base_url=f"{sim.url('gpt')}/v1", max_retries=0)
    sim.fault("gpt", "cut")

    events = list(gpt.responses.create(model=MODEL, input="x", stream=True))

    assert events[0].type == "response.created"
    assert "response.completed" not in [event.type for event in events]


def test_a_stream_can_end_with_an_error(sim: Simulator, call: Build, wire: str) -> None:
    """The stream begins well, then tells an error with status 200."""
    sim.fault("it", "stream_error", status=503 if wire == "google" else 529)

    with pytest.raises(
        (anthropic.APIStatusError, openai.APIError, google.ServerError), match=r"(?i)overloaded"
    ):
        call().streamed("hello")

    assert [hit["status"] for hit in sim.hits("it")] == [200]


def test_a_stream_can_break_in_its_middle(sim: Simulator, call: Build) -> None:
    """Truncated chunks and a reset are connection errors to a stream as well."""
    for kind in ("truncate", "reset_midway"):
        sim.fault("it", kind)
        with pytest.raises(CONNECTION_ERRORS):
            call().streamed("hello")


def test_latency_is_added_to_good_and_bad_answers(sim: Simulator) -> None:
    """A label's own latency, or the fault's instead of it."""
    sim.settings("claude", latency=0.2)
    healthy_s = _seconds(sim)
    sim.fault("claude", status=503, latency="uniform:0.4:0.5")
    faulty_s = _seconds(sim)
    sim.fault("claude", latency="lognormal:0.3:0.01")
    slow_s = _seconds(sim)

    assert healthy_s >= 0.2
    assert faulty_s >= 0.4
    assert slow_s >= 0.25


def test_the_first_due_fault_of_a_script_strikes(sim: Simulator) -> None:
    """Two calls are overloaded, the next is limited, the rest is well."""
    sim.script("claude", [{"kind": "overloaded", "first": 2}, {"status": 429, "first": 1}])

    statuses = [_post(sim).status_code for _ in range(4)]

    assert statuses == [529, 529, 429, 400]  # an empty body is what a healthy label refuses


def test_healing_ends_faults_and_reset_ends_settings(sim: Simulator, call: Build) -> None:
    """After `heal` calls are answered again; after `reset` as if nothing had been set."""
    caller = call()
    sim.settings("it", answer="set")
    sim.fault("it", "overloaded")

    sim.heal("it")
    healed = caller.said("hello").text
    sim.reset()
    fresh = caller.said("hello").text

    assert healed == "set"
    assert fresh.startswith("[it]")


def test_a_limit_per_minute_refuses_what_is_above_it(sim: Simulator) -> None:
    """The calls above the limit are told when there is room again."""
    sim.fault("claude", per_minute=3)

    responses = [_post(sim) for _ in range(5)]

    assert [response.status_code == 429 for response in responses] == [False] * 3 + [True] * 2
    assert 50 <= int(responses[-1].headers["retry-after"]) <= 60


def _post(sim: Simulator) -> httpx2.Response:
    headers = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"}
    return httpx2.post(f"{sim.url('claude')}/v1/messages", json={}, headers=headers)


def _seconds(sim: Simulator) -> float:
    before = time.monotonic()
    _post(sim)
    return time.monotonic() - before

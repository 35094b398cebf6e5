"""How long a vendor asks to be left alone, in each form, and what is not without_zero_counts."""

import time
from email.utils import formatdate
from typing import Any

import pytest

from breakwater.errors import ProviderError, RateLimited
from simulator.client import Simulator
from tasks.providers.errors.retry_after import retry_after_s
from tests.providers.conftest import Build
from tests.support.vendors import request

NOON = formatdate(1_800_000_000, usegmt=True)
LATER = formatdate(1_800_000_020, usegmt=True)
EARLIER = formatdate(1_799_999_000, usegmt=True)


def retry_info(delay: object) -> dict[str, Any]:
    """Return a Google error that tells a delay."""
    kind = "type.googleapis.com/google.rpc.RetryInfo"
    return {"error": {"code": 429, "details": [{"@type": kind, "retryDelay": delay}]}}


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"retry-after": "20"}, None, 20),
        ({"retry-after": " 1.5 "}, None, 1.5),
        ({"retry-after-ms": "1500"}, None, 1.5),
        ({"x-ms-retry-after-ms": "250"}, None, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "2"}, None, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, None, 2),
        ({"retry-after": LATER, "date": NOON}, None, 20),
        ({}, retry_info("3s"), 3),
        ({}, retry_info("3.250s"), 3.25),
        ({"retry-after": "7"}, retry_info("3s"), 7),
    ],
)
def test_each_form_is_read(headers: dict[str, str], body: object, expected: float) -> None:
    """Seconds, fractions, a date against the answer's own Date, milliseconds, RetryInfo."""
    assert retry_after_s(headers, body) == expected


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, None),
        *(
            ({"retry-after": said}, None)
            for said in ("", "0", "-5", "nan", "inf", "1e300", "86401", "soon", "12:30", "\x00")
        ),
        ({"retry-after-ms": "-1"}, None),
        ({"retry-after": EARLIER, "date": NOON}, None),
        ({"retry-after": "Fri, 99 Nov 2026 99:99:99 GMT"}, None),
        *(({}, retry_info(said)) for said in ("", "s", "-3s", "nan", 3, None, ["3s"])),
        *(({}, body) for body in ([], "3s", {"error": "3s"}, {"error": {"details": "3s"}})),
        ({}, {"error": {"details": [None, "3s", {"retryDelay": None}]}}),
    ],
)
def test_what_makes_no_sense_is_ignored(headers: dict[str, str], body: object) -> None:
    """Nothing, nonsense, the past, and more than a day are no wait at all."""
    assert retry_after_s(headers, body) is None


def test_a_date_without_the_answers_own_is_taken_by_our_clock() -> None:
    """RFC 9110 lets a server without a clock leave Date out."""
    headers = {"retry-after": formatdate(time.time() + 100, usegmt=True)}

    assert retry_after_s(headers, None) == pytest.approx(100, abs=5)


@pytest.mark.parametrize("form", ["seconds", "fraction", "date", "ms", "retry_info"])
def test_each_form_arrives_through_each_sdk(
    form: str, adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """The error carries the wait, so that the breaker can hold the provider back."""
    provider = build(adapter, simulator.url(label))
    simulator.fault(label, "rate_limited", retry_after=20, retry_after_form=form)

    with pytest.raises(RateLimited) as caught:
        provider.complete(request())

    if form == "retry_info" and adapter != "google":
        assert caught.value.retry_after_s is None
    else:
        assert caught.value.retry_after_s == pytest.approx(20, abs=1.5)


def test_a_wait_comes_with_any_error(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """Not a 429 alone: an overloaded vendor tells it too."""
    provider = build(adapter, simulator.url(label))
    simulator.fault(label, status=503, retry_after=7, retry_after_form="seconds")

    with pytest.raises(ProviderError) as caught:
        provider.complete(request())

    assert caught.value.retry_after_s == 7

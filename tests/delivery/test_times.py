"""Spans and moments by Redis' clock, whatever the host's shows."""

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from breakwater.messaging import times
from tasks.delivery.request import QuietRequest

NOW = 1_800_000_000_000
IN_AN_HOUR = "2027-01-15T09:00:00"


def own(age_ms: int = 0, **spans: int) -> dict[str, Any]:
    return {"breakwater": {**spans, "enqueued_ms": NOW - age_ms}}


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({}, 0),
        ({"eta": None}, 0),
        ({"eta": f"{IN_AN_HOUR}+00:00"}, 3600_000),
        ({"eta": f"{IN_AN_HOUR}Z"}, 3600_000),
        ({"eta": IN_AN_HOUR}, 3600_000),  # Celery's are in UTC
        ({"eta": "2027-01-15T10:00:00+01:00"}, 3600_000),
        ({"eta": "2020-01-01T00:00:00+00:00"}, 0),
        ({"eta": "soon"}, 0),
        ({"eta": 5}, 0),
        # The producer's host was an hour ahead, or behind: the span counts.
        ({"eta": f"{IN_AN_HOUR}+00:00", **own(countdown_ms=3_000)}, 3_000),
        ({"eta": "2020-01-01T00:00:00+00:00", **own(countdown_ms=3_000)}, 3_000),
        ({"eta": f"{IN_AN_HOUR}+00:00", **own(2_000, countdown_ms=3_000)}, 1_000),
        ({"eta": f"{IN_AN_HOUR}+00:00", **own(9_000, countdown_ms=3_000)}, 0),
        # The server's clock was set back by an hour after it was stored.
        ({"eta": f"{IN_AN_HOUR}+00:00", **own(-3600_000, countdown_ms=3_000)}, 3_000),
        # Written by a version that knew no spans, or by nobody of ours.
        ({"eta": f"{IN_AN_HOUR}+00:00", **own()}, 3600_000),
        ({"eta": f"{IN_AN_HOUR}+00:00", "breakwater": {"countdown_ms": 3_000}}, 3600_000),
        ({"eta": f"{IN_AN_HOUR}+00:00", "breakwater": "?"}, 3600_000),
    ],
)
def test_a_message_waits_by_redis_clock(headers: dict[str, Any], wait_ms: int) -> None:
    """A countdown is a span since it was stored; an absolute time is compared with Redis'."""
    assert times.due_in_ms(headers, NOW) == wait_ms


@pytest.mark.parametrize(
    ("headers", "left_s"),
    [
        ({"expires": f"{IN_AN_HOUR}+00:00"}, 3600),
        ({"expires": "2027-01-15T07:59:50+00:00"}, -10),
        ({"expires": "2020-01-01T00:00:00", **own(expires_ms=600_000)}, 600),
        ({"expires": f"{IN_AN_HOUR}", **own(60_000, expires_ms=600_000)}, 540),
        ({"expires": f"{IN_AN_HOUR}", **own(601_000, expires_ms=600_000)}, -1),
        ({"expires": f"{IN_AN_HOUR}", **own(-3600_000, expires_ms=600_000)}, 600),
        ({"expires": f"{IN_AN_HOUR}", **own(expires_ms=0)}, 0),
    ],
)
def test_an_expiry_is_restated_in_the_hosts_time(
    headers: dict[str, Any], left_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery reads the host's clock; what is left is the same on every host."""
    monkeypatch.setattr(times.time, "monotonic", lambda: 50.0)

    expires_at = times.restate(headers, NOW)
    left = datetime.fromisoformat(headers["expires"]) - datetime.now(UTC)

    assert expires_at == 50 + left_s
    assert left_s - 30 < left.total_seconds() <= left_s + 0.001


def test_an_eta_that_is_near_is_restated_and_one_that_is_over_is_none() -> None:
    """Celery's own timer waits for the last moment of it."""
    near = {"eta": "2020-01-01T00:00:00", **own(countdown_ms=800)}
    over = {"eta": f"{IN_AN_HOUR}", **own(5_000, countdown_ms=800)}

    times.restate(near, NOW)
    times.restate(over, NOW)

    assert abs(datetime.fromisoformat(near["eta"]) - datetime.now(UTC)) < timedelta(seconds=30)
    assert over["eta"] is None


def test_what_has_waited_is_due_whatever_its_message_said() -> None:
    """Redis' clock may be another one by then."""
    message = {"body": "x", "headers": {"id": "t", "eta": IN_AN_HOUR, **own(countdown_ms=3_000)}}

    later = times.undelayed(message)

    assert times.due_in_ms(later["headers"], 0) == 0
    assert later == {"body": "x", "headers": {"id": "t", "eta": None, **own()}}
    assert message["headers"]["eta"] == IN_AN_HOUR


def test_a_clock_counts_on_though_the_hosts_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the take on the monotonic clock counts."""
    monkeypatch.setattr(times.time, "monotonic", lambda: 12.5)
    monkeypatch.setattr(times.time, "time_ns", lambda: 0)

    assert times.Clock.of({"taken_at": [NOW, 10.0]}).now_ms() == NOW + 2_500
    assert times.Clock.of({}).now_ms() == 0


@pytest.mark.parametrize(("in_s", "expired"), [(60, False), (-1, True), (None, False)])
def test_a_request_expires_by_the_monotonic_clock(in_s: float | None, expired: bool) -> None:
    """Celery's own would compare a moment with the host's clock."""
    expires_at = None if in_s is None else time.monotonic() + in_s
    request: Any = SimpleNamespace(
        id=f"id {in_s}", message=SimpleNamespace(properties={"expires_at": expires_at})
    )

    assert QuietRequest.maybe_expire(request) is expired

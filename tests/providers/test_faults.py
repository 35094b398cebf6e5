"""What each fault of a vendor means, through each SDK: the error's class, and so its verdict."""

import pytest

from breakwater import errors
from breakwater.errors import ProviderError
from simulator.client import Simulator
from simulator.faults import KINDS
from tests.providers.conftest import Build
from tests.support.vendors import request

TRIPS, AT_ONCE, HELD_BACK, ELSEWHERE = "trips", "at once", "held back", "elsewhere"

FAULTS = {
    "overloaded": ("Overloaded", None, TRIPS),
    "unavailable": ("Overloaded", 503, TRIPS),
    "server_error": ("ServerError", 500, TRIPS),
    "bad_gateway": ("ServerError", 502, TRIPS),
    "timeout": ("ProviderTimeout", 408, TRIPS),
    "gateway_timeout": ("ProviderTimeout", 504, TRIPS),
    "hang": ("ProviderTimeout", None, TRIPS),
    "trickle": ("ProviderTimeout", None, TRIPS),
    "stall": ("ProviderTimeout", None, TRIPS),
    "stall_pings": ("ProviderTimeout", None, TRIPS),
    "reset": ("ConnectionFailed", None, TRIPS),
    "reset_early": ("ConnectionFailed", None, TRIPS),
    "reset_midway": ("ConnectionFailed", None, TRIPS),
    "garbage": ("GarbledAnswer", None, TRIPS),
    "html": ("GarbledAnswer", None, TRIPS),
    "wrong_shape": ("GarbledAnswer", None, TRIPS),
    "empty": ("GarbledAnswer", None, TRIPS),
    "no_text": ("GarbledAnswer", None, TRIPS),
    "truncate": ("TruncatedAnswer", None, TRIPS),
    "cut": ("TruncatedAnswer", None, TRIPS),
    "stream_error": ("Overloaded", None, TRIPS),
    "rate_limited": ("RateLimited", 429, HELD_BACK),
    "quota": ("QuotaExhausted", 429, AT_ONCE),
    "usage_limit": ("QuotaExhausted", None, AT_ONCE),
    "payment": ("QuotaExhausted", 402, AT_ONCE),
    "auth": ("AuthenticationFailed", None, AT_ONCE),
    "unauthenticated": ("AuthenticationFailed", 401, AT_ONCE),
    "permission": ("AuthenticationFailed", 403, AT_ONCE),
    "model_not_found": ("ModelNotFound", 404, ELSEWHERE),
    "context_window": ("ContextWindowExceeded", 400, ELSEWHERE),
    "content_filtered": ("ContentFiltered", None, ELSEWHERE),
    "content_filter": ("ContentFiltered", None, ELSEWHERE),
    "invalid": ("InvalidRequest", 400, ELSEWHERE),
    "too_large": ("UnsupportedInput", 413, ELSEWHERE),
}
"""By kind: our class, its status (None: none, or the vendors differ), and DESIGN's verdict."""

SLOW = {"hang", "trickle", "stall", "stall_pings"}
SUCCESSES = {"length", "refusal"}  # see test_answers
VERDICTS = {  # trips, trips at once, next target
    TRIPS: (True, False, True),
    AT_ONCE: (True, True, True),
    HELD_BACK: (False, False, True),
    ELSEWHERE: (False, False, True),
}


def test_the_table_has_every_fault_the_simulator_knows() -> None:
    """A fault that is new in the simulator gets its verdict here."""
    assert FAULTS.keys() | SUCCESSES == KINDS


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_becomes_the_error_with_the_right_verdict(
    kind: str, adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """Breaker and routing read the verdict alone, so each vendor's fault must end in its class."""
    name, status, verdict = FAULTS[kind]
    provider = build(adapter, simulator.url(label))
    simulator.fault(label, kind)
    total_s = 2 if kind in SLOW else 180

    with pytest.raises(ProviderError) as caught:
        provider.complete(request(timeout_s=total_s))

    assert type(caught.value).__name__ == name
    assert status is None or caught.value.status == status
    found = caught.value.verdict
    assert (found.trips, found.trips_at_once, found.next_target) == VERDICTS[verdict]
    assert str(caught.value).startswith(f"my-{adapter}")
    assert caught.value.__cause__ is None
    assert len(simulator.hits(label)) == 1, "the SDK must not retry on its own"


def test_a_refused_connection_is_the_providers_failure(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """Nobody listens: ConnectionFailed, at once."""
    url = simulator.url(label, own_port=True)
    simulator.refuse(label)

    with pytest.raises(errors.ConnectionFailed, match="the connection failed"):
        build(adapter, url).complete(request())


def test_a_host_that_does_not_exist_is_the_providers_failure(adapter: str, build: Build) -> None:
    """`.invalid` never resolves (RFC 2606)."""
    with pytest.raises(errors.ConnectionFailed):
        build(adapter, "http://nowhere.invalid").complete(request())

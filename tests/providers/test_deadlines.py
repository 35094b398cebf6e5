"""Who ended a call that took too long: the task's own deadline, or its provider's timeout."""

import time
from typing import Any

import pytest

from breaker import Breakers
from breakwater.calls.call import CompletionCall
from breakwater.errors import DeadlineExceeded
from simulator.client import Simulator
from tasks.answering.walk import NothingAvailable
from tasks.config import Role, Settings, Target, Timeout
from tests.support.loopback import Loopback
from tests.support.vendors import settings_for
from tests.support.walking import Walking

pytestmark = pytest.mark.slow  # each waits for a deadline; tests/tasks has them by a clock


class Reader:
    """Somebody who reads a stream along."""

    has_begun = False

    def delta(self, delta: Any) -> None:
        """Note that it has begun."""
        self.has_begun = True

    def restart(self, provider: str, error: str) -> None:
        """Begin anew."""


def walk(
    breakers: Breakers, adapter: str, url: str, timeout: Timeout, deadline_s: float, *, stream: bool
) -> Any:
    """Ask one provider through its SDK, with this much time."""
    first = settings_for(adapter, url, name="first", timeout=timeout)
    role = Role("coder", (Target("first", "m-1"),), stream_restart=True)
    walking = Walking(Settings({"first": first}, {"coder": role}), breakers)
    walking.registry.build()
    try:
        return walking.walk(
            CompletionCall.of("coder", "hi", {"stream": stream}), role,
            deadline=time.monotonic() + deadline_s, listener=Reader() if stream else None,
        )  # fmt: skip
    finally:
        walking.registry.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_that_cuts_a_silent_call_is_nobodys_failure(
    stream: bool, adapter: str, server: Loopback, breakers: Breakers
) -> None:
    """Plain, or before a stream's first token: the provider had 30 s of its own."""
    server.gate.clear()
    timeout = Timeout(5, 30, first_token_s=20, between_tokens_s=20)

    with pytest.raises(DeadlineExceeded, match="the deadline of the task cut the call") as cut:
        walk(breakers, adapter, server.url, timeout, 2.0, stream=stream)

    (attempt,) = cut.value.attempts
    assert (attempt["error"], attempt["outcome"]) == ("DeadlineExceeded", "failed")
    assert attempt["why"].endswith("; cut by the deadline of the task")
    view = breakers.get("first").peek()
    assert (view.state, view.failures) == ("closed", 0)


def test_a_deadline_that_cuts_a_stream_in_its_middle_is_nobodys_failure(
    adapter: str, simulator: Simulator, label: str, breakers: Breakers
) -> None:
    """The pace that the provider is held to was not over yet."""
    simulator.fault(label, "stall")
    timeout = Timeout(5, 30, first_token_s=20, between_tokens_s=20)

    with pytest.raises(DeadlineExceeded, match="the deadline of the task cut the call"):
        walk(breakers, adapter, simulator.url(label), timeout, 3.0, stream=True)

    assert breakers.get("first").peek().failures == 0


@pytest.mark.parametrize(
    ("timeout", "stream"),
    [
        (Timeout(5, 0.4), False), (Timeout(5, 0.4), True),
        (Timeout(5, 30, first_token_s=0.4), True),
    ],
)  # fmt: skip
def test_a_providers_own_timeout_is_its_failure(
    timeout: Timeout, stream: bool, adapter: str, server: Loopback, breakers: Breakers
) -> None:
    """Its total, and its time to the first token, with a deadline that is far away."""
    server.gate.clear()

    with pytest.raises(NothingAvailable) as nothing:
        walk(breakers, adapter, server.url, timeout, 300, stream=stream)

    assert [a.error for a in nothing.value.attempts] == ["ProviderTimeout"]
    assert breakers.get("first").peek().failures == 1

"""Explicit caches at Google: made once, used until shortly before their end, never in the way."""

import threading
from typing import Any

import pytest

from breakwater import errors
from breakwater.content import Message
from simulator.client import Simulator
from tasks.providers.base import Request
from tasks.providers.google_caches import RENEW_BEFORE_S, RETRY_S, TTL_S, Caches, Prefix
from tasks.providers.http import call_limits
from tests.providers.conftest import Build

LONG = "be brief " * 2000
PREFIX = Prefix("m-1", LONG, None, None)


class FakeClient:
    """Google's `caches.create`; `names` are what it answers, an error is raised."""

    def __init__(self, *names: Any) -> None:
        self.names = [*names]
        self.asked = 0
        self.caches = self

    def create(self, **_: Any) -> Any:
        """Answer the next name."""
        self.asked += 1
        name = self.names.pop(0)
        if isinstance(name, BaseException):
            raise name
        return type("Cached", (), {"name": name})


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def caches(*names: Any) -> tuple[Any, FakeClient, Clock]:
    """Return caches over a fake client, the client, and the clock."""
    client, clock = FakeClient(*names), Clock()
    return Caches(client, clock), client, clock  # type: ignore[arg-type]


def test_a_cache_is_used_until_shortly_before_its_end() -> None:
    """And a new one made then."""
    kept, client, clock = caches("one", "two")

    assert [kept.name_for(PREFIX, None) for _ in range(3)] == ["one"] * 3
    clock.now = TTL_S - RENEW_BEFORE_S
    assert kept.name_for(PREFIX, None) == "two"
    assert client.asked == 2


def test_another_prefix_has_another_cache() -> None:
    """Model, system prompt, tools and the choice among them make it."""
    kept, client, _ = caches("one", "two")

    assert kept.name_for(PREFIX, None) == "one"
    assert kept.name_for(Prefix("m-2", LONG, None, None), None) == "two"
    assert client.asked == 2


def test_a_short_prefix_is_left_to_implicit_caching() -> None:
    """Gemini refuses to cache it, and storage costs."""
    kept, client, _ = caches()

    assert kept.name_for(Prefix("m-1", "be brief", None, None), None) is None
    assert client.asked == 0


def test_a_cache_that_cannot_be_made_is_not_tried_again_for_a_while() -> None:
    """Or every call would pay for the attempt."""
    kept, client, clock = caches(ValueError("no"), "one")

    assert [kept.name_for(PREFIX, None) for _ in range(3)] == [None] * 3
    assert client.asked == 1
    clock.now = RETRY_S
    assert kept.name_for(PREFIX, None) == "one"


def test_a_call_that_is_ended_is_not_taken_for_a_failed_cache() -> None:
    """Shutdown and time limits end the call itself."""
    kept, _, _ = caches(errors.Cancelled("the call was ended from our side"))

    with pytest.raises(errors.Cancelled):
        kept.name_for(PREFIX, None)


def test_one_thread_makes_the_cache_and_the_others_do_without() -> None:
    """A thousand tasks of one role begin at once."""
    kept, client, _ = caches("one")
    began, go_on = threading.Event(), threading.Event()
    create = client.create

    def slowly(**fields: Any) -> Any:
        began.set()
        go_on.wait(180)
        return create(**fields)

    client.create = slowly  # type: ignore[method-assign]
    named: list[str | None] = []
    maker = threading.Thread(target=lambda: named.append(kept.name_for(PREFIX, None)))
    maker.start()
    began.wait(180)

    assert [kept.name_for(PREFIX, None) for _ in range(100)] == [None] * 100
    go_on.set()
    maker.join()

    assert named == ["one"]
    assert client.asked == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cache_that_google_forgot_costs_one_more_request(
    streamed: bool, simulator: Simulator, label: str, build: Build
) -> None:
    """Never the call; and the next makes a new one."""
    provider: Any = build("google", simulator.url(label), prompt_cache=True)
    asked = Request(
        [Message("user", "one")], "m-1", LONG, on_delta=(lambda _: None) if streamed else None
    )
    provider.complete(asked)
    (first,) = {entry.name for entry in provider._caches._entries.values()}
    provider._client.caches.delete(name=first)

    assert provider.complete(asked).text
    provider.complete(asked)

    (second,) = {entry.name for entry in provider._caches._entries.values()}
    used = [hit["asked"]["prompt_cache"] for hit in simulator.hits(label) if hit["asked"]]
    assert [name for name in used if name is not None] == [first, False, second]
    assert second != first


def test_what_is_refused_for_other_reasons_is_not_asked_twice(
    simulator: Simulator, label: str, build: Build
) -> None:
    """A prompt that is too long stays so without its cache."""
    provider: Any = build("google", simulator.url(label), prompt_cache=True)
    provider.complete(Request([Message("user", "one")], "m-1", LONG))
    before = len(simulator.hits(label))
    simulator.fault(label, "context_window")

    with pytest.raises(errors.ContextWindowExceeded):
        provider.complete(Request([Message("user", "one")], "m-1", LONG))

    assert len(simulator.hits(label)) == before + 1


def test_making_a_cache_is_held_to_no_streams_pace(
    simulator: Simulator, label: str, build: Build
) -> None:
    """And leaves the limits of the call that follows as they were."""
    sent: list[int] = []
    provider = build("google", simulator.url(label), prompt_cache=True)

    provider.complete(
        Request(
            [Message("user", "one")], "m-1", LONG, on_delta=lambda _: None,
            first_token_s=20, between_tokens_s=20, before_sending=lambda: sent.append(1),
        )
    )  # fmt: skip

    assert sent == [1, 1], "the cache's request, and the call itself"
    assert call_limits.current.timeouts is None

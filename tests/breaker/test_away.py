"""I15: what an unreachable Redis costs, and who decides meanwhile."""

import socket

import fakeredis
import pytest
import structlog
from redis import exceptions

from breaker import BreakerOpen, Breakers
from breaker.failover import FailoverStorage
from breaker.redis_storage import RedisStorage
from breaker.state import Report, Rules

RULES = Rules()


@pytest.fixture
def nobody() -> str:
    """The URL of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"redis://127.0.0.1:{server.getsockname()[1]}/0"


class Flaky(RedisStorage):
    """Redis that raises what it is told to; counts how often it was asked."""

    error: Exception | None = None
    asked = 0

    def _run(self, *args: object, **named: object) -> object:  # type: ignore[override]
        self.asked += 1
        if self.error:
            raise self.error
        return super()._run(*args, **named)  # type: ignore[arg-type]


class Outage:
    """A store over a Redis that can be taken away, and a clock that can be moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.redis = Flaky(fakeredis.FakeRedis())
        self.running: list[str] = []
        self.store = FailoverStorage(self.redis, lambda _: self.running, lambda: self.now_s)

    def goes(self, error: Exception | None = None) -> None:
        self.redis.error = error or exceptions.ConnectionError("gone")

    def comes_back(self) -> None:
        self.redis.error = None
        self.now_s += 1.0

    def run(self, outcome: str, token: str = "t") -> str:
        answer = self.store.admit("x", RULES, token)
        assert answer.accepted
        view = answer.view
        report = Report(token, view.generation, outcome, "ServerError", source=view.source)  # type: ignore[arg-type]
        recorded = self.store.record("x", RULES, report)
        assert recorded
        return recorded.view.state


@pytest.fixture
def outage() -> Outage:
    return Outage()


def test_i15_after_a_failure_one_caller_a_second_tries_again(outage: Outage) -> None:
    """All the others go on locally."""
    outage.goes()
    outage.store.admit("x", RULES, "t")
    for _ in range(9):
        outage.store.admit("x", RULES, "t")
    assert outage.redis.asked == 1

    outage.now_s += 1.0
    for _ in range(9):
        outage.store.admit("x", RULES, "t")

    assert outage.redis.asked == 2


def test_i15_while_one_caller_tries_all_others_go_on(outage: Outage) -> None:
    """The one that tries claims the second before it asks."""
    outage.goes()
    outage.store.admit("x", RULES, "t")
    outage.now_s += 1.0
    nested: list[str] = []

    original = outage.redis._run

    def slow(*args: object, **named: object) -> object:
        if not nested:
            nested.append(outage.store.admit("x", RULES, "u").view.source)
        return original(*args, **named)

    outage.redis._run = slow  # type: ignore[method-assign]
    outage.store.admit("x", RULES, "t")

    assert (nested, outage.redis.asked) == (["local"], 2)


@pytest.mark.parametrize(
    "name",
    [
        "ConnectionError", "TimeoutError", "BusyLoadingError", "ReadOnlyError",
        "OutOfMemoryError", "ClusterDownError", "NoPermissionError", "AuthenticationError",
    ],
)  # fmt: skip
def test_every_redis_error_counts_as_away(outage: Outage, name: str) -> None:
    """A replica, a loading or a full server can keep no breaker either."""
    outage.goes(getattr(exceptions, name)("x"))

    assert outage.store.admit("x", RULES, "t").view.source == "local"
    assert outage.store.peek("x", RULES).source == "local"
    assert [view.source for view in outage.store.peek_all()] == ["local"]


def test_i15_the_same_rules_hold_locally(outage: Outage) -> None:
    """Five failures open it, counted on from what Redis said last."""
    for _ in range(3):
        outage.run("failure")
    outage.goes()

    assert outage.run("failure") == "closed"
    assert outage.run("failure") == "open"

    refused = outage.store.admit("x", RULES, "t")
    assert (refused.accepted, refused.wait_s) == (0, 30)
    outage.now_s += 30
    assert [outage.run("success", token) for token in "ab"] == ["half-open", "closed"]


def test_i15_a_known_open_breaker_stays_open_for_its_remaining_time(outage: Outage) -> None:
    """pybreaker reads it as closed, and the provider is called."""
    for _ in range(5):
        outage.run("failure")
    outage.now_s += 10
    outage.goes()

    refused = outage.store.admit("x", RULES, "t")

    assert (refused.accepted, refused.view.source) == (0, "local")
    assert refused.wait_s == pytest.approx(20, abs=0.1)


def test_i15_a_hold_back_is_kept_too(outage: Outage) -> None:
    """The provider's Retry-After does not end with Redis."""
    granted = outage.store.admit("x", RULES, "t")
    outage.store.record("x", RULES, Report("t", granted.view.generation, "neutral", "", 60))
    outage.goes()

    assert outage.store.admit("x", RULES, "t").wait_s == pytest.approx(60, abs=0.1)


def test_an_operators_word_is_kept_too(outage: Outage) -> None:
    """`forced` was seen in the last answer, and is obeyed until Redis answers again."""
    outage.store.admit("x", RULES, "t")
    outage.store.force("x", RULES, forced="open")
    outage.goes()

    assert outage.store.admit("x", RULES, "t").accepted == 0


def test_a_call_redis_admitted_may_be_recorded_locally(outage: Outage) -> None:
    """The generation carries over; so do the leases of this process's probes."""
    outage.run("success")
    outage.store.force("x", RULES, to="half-open")
    granted = outage.store.admit("x", RULES, "probe")
    outage.running.append("probe")
    outage.goes()

    report = Report("probe", granted.view.generation, "success")
    answer = outage.store.record("x", RULES, report)

    assert (answer.accepted, answer.view.successes, answer.view.source) == (1, 1, "local")


def test_when_redis_answers_redis_wins(outage: Outage) -> None:
    """What was counted locally is forgotten; a call admitted locally is not recorded."""
    outage.run("failure")
    outage.goes()
    granted = outage.store.admit("x", RULES, "t")
    for _ in range(4):
        outage.run("failure", "u")
    assert outage.store.views()[0].state == "open"

    outage.comes_back()

    assert outage.store.peek("x", RULES).failures == 1
    report = Report("t", granted.view.generation, "failure", source="local")
    assert outage.store.record("x", RULES, report) is None
    assert outage.store.peek("x", RULES).failures == 1


def test_one_outage_does_not_count_in_the_next(outage: Outage) -> None:
    """Local generations never come twice."""
    outage.goes()
    for _ in range(5):
        outage.run("failure")
    stale = outage.store.views()[0].generation
    outage.comes_back()
    outage.store.admit("x", RULES, "t")

    outage.goes()

    later = outage.store.admit("x", RULES, "t").view
    assert later.state == "closed"
    report = Report("t", stale, "failure", source="local")
    answer = outage.store.record("x", RULES, report)
    assert answer
    assert (answer.accepted, answer.view.stale) == (0, 1)


def test_the_switch_is_logged_once_each_way(outage: Outage) -> None:
    """By class of the error alone: its text may hold an address."""
    with structlog.testing.capture_logs() as logs:
        outage.goes(exceptions.ConnectionError("redis://:password@host"))
        for _ in range(3):
            outage.store.admit("x", RULES, "t")
        outage.now_s += 1
        outage.store.admit("x", RULES, "t")
        outage.comes_back()
        for _ in range(3):
            outage.store.admit("x", RULES, "t")

    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "breaker.redis_away"),
        ("info", "breaker.redis_back"),
    ]
    assert "password" not in str(logs)


def test_an_operators_command_is_not_lost_silently(nobody: str) -> None:
    """It is meant for the fleet: without Redis it fails, and changes nothing here."""
    breaker = Breakers.from_url(nobody).get("x")

    with pytest.raises(exceptions.RedisError):
        breaker.open()
    with pytest.raises(exceptions.RedisError):
        breaker.force("open")

    assert breaker.call(lambda: "through") == "through"


def test_a_process_that_never_saw_redis_still_has_a_breaker(nobody: str) -> None:
    """Constructing does no I/O, and five failures open it."""
    breakers = Breakers.from_url(nobody)
    breaker = breakers.get("x")
    for _ in range(5):
        breaker.record(breaker.admit(), "failure", reason="ServerError")

    with pytest.raises(BreakerOpen) as refused:
        breaker.admit()

    assert refused.value.reason == "ServerError"
    assert [(view.state, view.source) for view in breakers.views()] == [("open", "local")]

"""I11, and what listening gives up: a closed breaker is admitted by what was heard of it."""

import os
from collections.abc import Callable, Iterator

import fakeredis
import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from redis.exceptions import ConnectionError as Away

from breaker import BreakerOpen, Breakers, views
from breaker.changes import ChangeListener
from breaker.failover import FailoverStorage
from breaker.redis_storage import RedisStorage
from breaker.state import Report, Rules
from breaker.views import MAX_VIEW_AGE_S
from tests.support.fleet import wait_for
from tests.support.valkey import Server

RULES = Rules()


class Counted(RedisStorage):
    """Redis that counts how often it is asked, and can be away."""

    asked = 0
    away = False
    while_asked: Callable[[], None] = staticmethod(lambda: None)

    def _run(self, *args: object, **named: object) -> object:  # type: ignore[override]
        self.asked += 1
        if self.away:
            raise Away("gone")
        answer = super()._run(*args, **named)  # type: ignore[arg-type]
        self.while_asked()
        return answer


class Ear:
    """What has been heard, by the test's word."""

    at_s: float | None = 0.0

    def last_change_at_s(self, name: str) -> float | None:
        return self.at_s

    def restart(self) -> None:
        pass


class Listener:
    """A store that listens, on a clock that can be moved; `others` is another process."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        client = fakeredis.FakeRedis()
        self.redis, self.others, self.ear = Counted(client), RedisStorage(client), Ear()
        self.store = FailoverStorage(
            self.redis,
            clock=lambda: self.now_s,
            changes=self.ear,  # type: ignore[arg-type]
        )

    def admit(self) -> str:
        answer = self.store.admit("x", RULES, "t")
        return answer.view.state if answer.accepted else "refused"

    def record(self, outcome: str, generation: int, retry_after_s: float | None = None) -> None:
        report = Report("t", generation, outcome, "ServerError", retry_after_s)  # type: ignore[arg-type]
        self.store.record("x", RULES, report)

    def asks(self, step: Callable[[], object]) -> int:
        before = self.redis.asked
        step()
        return self.redis.asked - before


@pytest.fixture
def listener() -> Listener:
    listener = Listener()
    listener.admit()
    listener.now_s += 0.01
    return listener


def test_a_closed_breaker_is_asked_once_in_a_while_not_for_each_call(listener: Listener) -> None:
    """Its view is good for MAX_VIEW_AGE_S."""
    assert listener.asks(listener.admit) == 0

    listener.now_s += MAX_VIEW_AGE_S

    assert listener.asks(listener.admit) == 1
    assert listener.asks(listener.admit) == 0


def test_a_change_that_is_heard_is_asked_about(listener: Listener) -> None:
    """Whatever it was."""
    listener.others.force("x", RULES, forced="open")
    listener.ear.at_s = listener.now_s

    assert listener.admit() == "refused"


def test_a_change_that_is_not_heard_counts_after_a_moment(listener: Listener) -> None:
    """A push may be lost; nobody publishes a hand in Redis, which is obeyed within a second."""
    listener.others.force("x", RULES, forced="open")
    assert listener.admit() == "closed"

    listener.now_s += 1.0

    assert listener.admit() == "refused"


def test_an_answer_that_was_asked_for_before_a_change_was_heard_is_not_trusted(
    listener: Listener,
) -> None:
    """The change may have come after the answer was written."""

    def changes() -> None:
        listener.now_s += 0.01
        listener.ear.at_s = listener.now_s

    listener.now_s += MAX_VIEW_AGE_S
    listener.redis.while_asked = changes
    listener.admit()
    listener.redis.while_asked = lambda: None
    listener.now_s += 0.01

    assert listener.asks(listener.admit) == 1


def test_while_nobody_listens_every_call_is_asked_for(listener: Listener) -> None:
    """As without listening at all."""
    listener.ear.at_s = None

    assert listener.asks(listener.admit) == 1
    assert listener.asks(listener.admit) == 1


@pytest.mark.parametrize("how", ["open", "half-open", "forced open", "forced closed", "held"])
def test_only_a_closed_breaker_that_is_let_alone_is_known_by_its_view(
    listener: Listener, how: str
) -> None:
    """In any other state a call may take a place, or be refused."""
    view = listener.others.peek("x", RULES)
    if how == "held":
        report = Report("o", view.generation, "neutral", "RateLimited", 20.0)
        listener.others.record("x", RULES, report)
    elif how.startswith("forced"):
        listener.others.force("x", RULES, forced=how.split()[1])  # type: ignore[arg-type]
    else:
        listener.others.force("x", RULES, to=how)  # type: ignore[arg-type]
    listener.now_s += MAX_VIEW_AGE_S
    listener.admit()

    assert listener.asks(listener.admit) == 1


def test_a_success_is_told_only_while_there_is_something_for_it_to_change(
    listener: Listener,
) -> None:
    """A run of failures, or a Retry-After; or the breaker is another by now."""
    generation = listener.store.views()[0].generation

    assert listener.asks(lambda: listener.record("success", generation)) == 0
    assert listener.asks(lambda: listener.record("success", generation - 1)) == 1
    assert listener.asks(lambda: listener.record("success", generation, 20.0)) == 1


def test_a_success_ends_the_run_that_was_heard_of(listener: Listener) -> None:
    """Also one of other processes."""
    generation = listener.store.views()[0].generation
    listener.others.record("x", RULES, Report("o", generation, "failure", "ServerError"))
    listener.ear.at_s = listener.now_s

    listener.record("success", generation)

    assert listener.others.peek("x", RULES).failures == 0


@pytest.mark.parametrize("outcome", ["failure", "neutral"])
def test_whatever_is_no_success_is_told_always(listener: Listener, outcome: str) -> None:
    """A failure may be the one that trips."""
    generation = listener.store.views()[0].generation

    assert listener.asks(lambda: listener.record(outcome, generation)) == 1


def test_a_hold_that_has_ended_is_cleared_by_whom_it_let_through(listener: Listener) -> None:
    """No success may come to tell, and redis-cli would show it for ever."""
    client = listener.others.client
    client.hset(
        "breaker:{x}", mapping={"held_until_ms": 1, "held_for_ms": 1, "reason": "throttled"}
    )

    listener.now_s += MAX_VIEW_AGE_S
    listener.admit()

    assert client.hmget("breaker:{x}", "held_until_ms", "reason") == [b"0", b""]


def test_an_outage_is_the_local_breakers_affair(listener: Listener) -> None:
    """Listening changes nothing there."""
    listener.now_s += MAX_VIEW_AGE_S
    listener.redis.away = True
    listener.admit()

    assert listener.store.admit("x", RULES, "t").view.source == "local"


class Overheard(RuleBasedStateMachine):
    """
    I11, whatever happens between: others' calls and hands, time, pushes heard late or never.

    What is admitted without asking was closed within the last MAX_VIEW_AGE_S, and was not known to have
    changed; what is not sure is asked.
    """

    @initialize()
    def begin(self) -> None:
        self.listener = Listener()
        self.listener.ear.at_s = None
        self.changed_at_s: float | None = None
        self.closed_at: list[tuple[float, bool]] = []  # from when on it was closed, or was not
        self._note()

    def _note(self) -> None:
        view = self.listener.others.peek("x", RULES)
        is_closed = view.state == "closed" and not view.forced and not view.held_for_s
        self.closed_at.append((self.listener.now_s, is_closed))

    @rule(outcome=st.sampled_from(["success", "failure", "neutral"]))
    def others_call(self, outcome: str) -> None:
        others = self.listener.others
        answer = others.admit("x", RULES, "o")
        if answer.accepted:
            report = Report("o", answer.view.generation, outcome, "E")  # type: ignore[arg-type]
            if others.record("x", RULES, report).view.seq != answer.view.seq:
                self.changed_at_s = self.listener.now_s
        self._note()

    @rule(to=st.sampled_from(["open", "half-open", "closed"]))
    def others_turn_it(self, to: str) -> None:
        self.listener.others.force("x", RULES, to=to)  # type: ignore[arg-type]
        self.changed_at_s = self.listener.now_s
        self._note()

    @rule(forced=st.sampled_from(["open", "closed", "none"]))
    def others_force_it(self, forced: str) -> None:
        self.listener.others.force("x", RULES, forced=forced)
        self.changed_at_s = self.listener.now_s
        self._note()

    @rule()
    def the_data_is_lost(self) -> None:
        self.listener.others.client.flushall()
        self._note()

    @rule(seconds=st.sampled_from([0.001, 0.3, MAX_VIEW_AGE_S, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.listener.now_s += seconds

    @rule()
    def the_change_is_heard(self) -> None:
        if self.changed_at_s is not None and self.listener.ear.at_s is not None:
            self.listener.ear.at_s = self.listener.now_s

    @rule()
    def listening_begins(self) -> None:
        self.listener.ear.at_s = self.listener.now_s

    @rule()
    def listening_ends(self) -> None:
        self.listener.ear.at_s = None

    @rule()
    def we_call(self) -> None:
        listener, heard_at_s = self.listener, self.listener.ear.at_s
        before = {view.name: view for view in listener.store.views()}
        asked = listener.asks(listener.admit)
        after = listener.store.views()[0]
        if "x" in before:
            old = before["x"]
            assert (after.generation, after.seq) >= (old.generation, old.seq)
        if asked:
            self._note()
            return
        since_s = listener.now_s - MAX_VIEW_AGE_S
        assert heard_at_s is not None
        until = [at_s for at_s, _ in self.closed_at[1:]] + [listener.now_s]
        assert any(
            is_closed and end_s >= max(since_s, heard_at_s)
            for (_, is_closed), end_s in zip(self.closed_at, until, strict=True)
        )


TestOverheard = Overheard.TestCase
TestOverheard.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.fixture
def pair(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Breakers, Breakers]]:
    """Two processes' breakers that listen, and never ask because of age alone."""
    monkeypatch.setattr(views, "MAX_VIEW_AGE_S", 3600.0)
    with_ears = [Breakers.from_url(redis_url, listen=True) for _ in range(2)]
    yield with_ears[0], with_ears[1]
    for breakers in with_ears:
        breakers.close()


def is_sure(breakers: Breakers) -> bool:
    breakers.get("x").admit()
    return breakers._storage._fresh_closed_view("x") is not None


def refuses(breakers: Breakers) -> bool:
    try:
        breakers.get("x").admit()
    except BreakerOpen:
        return True
    return False


def test_a_trip_is_heard_by_every_process(pair: tuple[Breakers, Breakers]) -> None:
    """Pushed by the very script that trips it."""
    ours, theirs = pair
    wait_for(lambda: is_sure(ours))
    breaker = theirs.get("x")

    for _ in range(5):
        breaker.record(breaker.admit(), "failure", reason="Overloaded")

    wait_for(lambda: refuses(ours))


def test_an_ear_that_is_cut_off_is_not_relied_on(
    pair: tuple[Breakers, Breakers], redis_url: str
) -> None:
    """What was published meanwhile is lost; once it listens again, it asks first."""
    ours, theirs = pair
    wait_for(lambda: is_sure(ours))
    changes = ours._storage._changes
    assert changes
    since_s = changes.last_change_at_s("x")

    with redis.Redis.from_url(redis_url) as client:
        client.client_kill_filter(_type="pubsub")
        wait_for(lambda: changes.last_change_at_s("x") != since_s)
        theirs.get("x").force("open")

    wait_for(lambda: refuses(ours))
    theirs.get("x").force(None)
    wait_for(lambda: is_sure(ours))


def test_while_redis_is_away_nobody_listens() -> None:
    """What is published when it is back may be missed."""
    with Server() as server, redis.Redis.from_url(server.url) as client:
        changes = ChangeListener(client)
        wait_for(lambda: changes.last_change_at_s("x") is not None)

        server.kill()

        wait_for(lambda: changes.last_change_at_s("x") is None)
        changes.close()


def test_a_child_listens_for_itself(pair: tuple[Breakers, Breakers]) -> None:
    """A fork has no thread of its parent's."""
    ours, theirs = pair
    wait_for(lambda: is_sure(ours))

    if (pid := os.fork()) == 0:
        try:
            wait_for(lambda: is_sure(ours))
            theirs.get("x").force("open")
            wait_for(lambda: refuses(ours))
        except BaseException:  # noqa: BLE001 - the child must not run the tests that follow
            os._exit(1)
        os._exit(0)

    assert os.waitpid(pid, 0)[1] == 0
    wait_for(lambda: refuses(ours))

"""The states of a run and of its turns: every transition there is, and no other, in Redis itself."""

import json
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from breakwater.errors import UnknownRun
from breakwater.workflows import Definition, Stage
from breakwater.workflows.progress import StageRun
from breakwater.workflows.run_store import FINISHED_STATES, RunStore, Transition

STATES = ("none", "pending", "running", "succeeded", "failed", "cancelled")
ENDS = ("succeeded", "failed", "cancelled")
RUN_MOVES = {
    ("pending", "running"), ("pending", "failed"), ("pending", "cancelled"),
    *(("running", end) for end in ENDS), ("failed", "running"), ("cancelled", "running"),
}  # fmt: skip
TURN_MOVES = {("none", "pending"), ("pending", "running"), *(("running", end) for end in ENDS)}
STAGE = Stage("code", "coder", "{input}")
DEFINITION = Definition("feature", (STAGE,))
KEY = "code:1:1"


@pytest.fixture(params=["fakeredis", "server"])
def store(request: pytest.FixtureRequest) -> Iterator[RunStore]:
    """Of runs, empty."""
    if request.param == "fakeredis":
        yield RunStore(fakeredis.FakeRedis(server_type="valkey"))
        return
    client = redis.Redis.from_url(request.getfixturevalue("redis_url"))
    yield RunStore(client)
    client.close()


def put(store: RunStore, run: str, turn: str = "none") -> None:
    """Begin the run `r`, and set run and turn to these states, whatever is legal."""
    store.start("r", DEFINITION, "hi", [], "test")
    client: Any = store.client
    client.hset("workflow:r", mapping={"state": run, "out": int(turn == "running")})
    if turn != "none":
        client.hset("workflow:r", f"turn:{KEY}", json.dumps({**about(1), "state": turn}))


def about(number: int) -> dict[str, Any]:
    return {"stage": "code", "round": number, "try": 1, "role": "coder"}


def states(store: RunStore) -> tuple[str, dict[str, str]]:
    snapshot = store.snapshot("r")
    return snapshot.state, {key: facts["state"] for key, facts in snapshot.stage_runs.items()}


@pytest.mark.parametrize("from_", STATES[1:])
def test_a_run_goes_where_it_may_and_nowhere_else(store: RunStore, from_: str) -> None:
    """All pairs; a refusal says why, and changes nothing."""
    for to in STATES:
        store.client.flushdb()
        put(store, from_)

        told = store.move("r", [Transition("run", from_, to)], "test")

        assert (told == "") == ((from_, to) in RUN_MOVES), (from_, to)
        assert told in {"", f"run cannot go from {from_} to {to}"}
        assert states(store)[0] == (to if (from_, to) in RUN_MOVES else from_)


@pytest.mark.parametrize("from_", STATES)
def test_a_turn_goes_where_it_may_and_nowhere_else(store: RunStore, from_: str) -> None:
    """All pairs, in every state of its run: only one that runs begins turns and ends them."""
    for run in STATES[1:]:
        for to in STATES:
            store.client.flushdb()
            put(store, run, from_)
            before = states(store)

            told = store.move("r", [Transition(KEY, from_, to, about(1))], "test")

            legal = (from_, to) in TURN_MOVES and run == "running"
            assert (told == "") == legal, (run, from_, to, told)
            assert states(store) == ((run, {KEY: to}) if legal else before)


@pytest.mark.parametrize("is_", STATES[1:])
def test_what_is_not_so_any_more_is_refused(store: RunStore, is_: str) -> None:
    """Whoever was quicker has moved it; the other looks again."""
    for believed in set(STATES) - {is_}:
        store.client.flushdb()
        put(store, "running", is_)

        assert (
            store.move("r", [Transition(KEY, believed, "failed")], "test")
            == f"{KEY} is {is_}, not {believed}"
        )


@pytest.mark.parametrize("end", ENDS)
def test_no_run_ends_while_a_turn_runs(store: RunStore, end: str) -> None:
    """Unless the turn ends in the same step; so nothing is paid for behind a cancellation's back."""
    put(store, "running", "running")

    assert store.move("r", [Transition("run", "running", end)], "test") == "a turn runs"
    assert (
        store.move(
            "r", [Transition(KEY, "running", end), Transition("run", "running", end)], "test"
        )
        == ""
    )
    assert states(store) == (end, {KEY: end})


def test_a_step_is_done_whole_or_not_at_all(store: RunStore) -> None:
    """Also its answers."""
    put(store, "running", "running")
    moves = [Transition(KEY, "running", "succeeded"), Transition("run", "pending", "running")]

    assert store.move("r", moves, "test", {KEY: "the answer"}) == "run is running, not pending"
    assert states(store) == ("running", {KEY: "running"})
    assert store.read("r", KEY) is None


def test_a_turn_is_prepared_and_begun_in_one_step(store: RunStore) -> None:
    """As that of a loop's next round is; what is told of it in both is kept."""
    put(store, "running")
    moves = [
        Transition(KEY, "none", "pending", about(1)), Transition(KEY, "pending", "running", {"task_id": "t"}),
    ]  # fmt: skip

    assert store.move("r", moves, "test") == ""
    facts = store.snapshot("r").stage_runs[KEY]
    assert (facts["state"], facts["role"], facts["task_id"]) == ("running", "coder", "t")


def test_a_run_is_begun_once(store: RunStore) -> None:
    """The second of the same id changes nothing."""
    turns = [(STAGE, StageRun("code"))]

    assert store.start("r", DEFINITION, "first", turns, "ann")
    assert not store.start("r", DEFINITION, "second", turns, "bob")
    assert store.input("r") == "first"
    assert [snapshot.run for snapshot in store.runs(10)] == ["r"]


def test_every_transition_is_an_event_with_its_time_and_who(store: RunStore) -> None:
    """In their order."""
    store.start("r", DEFINITION, "hi", [(STAGE, StageRun("code"))], "ann")
    store.move(
        "r", [Transition("run", "pending", "running"), Transition(KEY, "pending", "running")], "w1"
    )
    store.move(
        "r", [Transition(KEY, "running", "failed"), Transition("run", "running", "failed")], "w2"
    )

    events = store.events("r")

    assert [(each["what"], each["from"], each["to"], each["who"]) for each in events] == [
        ("run", "none", "pending", "ann"), (KEY, "none", "pending", "ann"),
        ("run", "pending", "running", "w1"), (KEY, "pending", "running", "w1"),
        (KEY, "running", "failed", "w2"), ("run", "running", "failed", "w2"),
    ]  # fmt: skip
    assert [each["at_ms"] for each in events] == sorted(each["at_ms"] for each in events)


def test_a_run_outlives_its_longest_stage_and_is_gone_then(store: RunStore) -> None:
    """Its expiry is renewed by each transition; the list forgets what is gone."""
    client: Any = store.client
    put(store, "running", "running")
    for key in client.keys("workflow:r*"):
        client.pexpire(key, 1000)

    store.move("r", [Transition(KEY, "running", "succeeded")], "test", {KEY: "x"})

    lives = {key: client.ttl(key) for key in client.keys("workflow:r*")}
    assert len(lives) == 3
    assert min(lives.values()) > 59 * 86400
    client.delete(*lives)
    assert store.runs(10) == []
    store.start("s", DEFINITION, "hi", [], "test")
    assert client.zrange("workflows", 0, -1) == [b"s"]
    with pytest.raises(UnknownRun, match="no run 'r'; `breakwater workflows` lists"):
        store.snapshot("r")


class Runs(RuleBasedStateMachine):
    """Whatever is asked in whatever order, Redis and a model of a few lines say the same."""

    @initialize()
    def begin(self) -> None:
        self.store = RunStore(fakeredis.FakeRedis(server_type="valkey"))
        self.store.start("r", DEFINITION, "hi", [], "test")
        self.run = "pending"
        self.turns: dict[str, str] = {}
        self.events = 1

    @rule(
        moves=st.lists(
            st.tuples(
                st.sampled_from(["run", "code:1:1", "code:2:1"]),
                st.sampled_from(STATES),
                st.booleans(),
            ),
            min_size=1,
            max_size=3,
        )
    )
    def move(self, moves: list[tuple[str, str, bool]]) -> None:
        """Ask for a few at once, most of them from where each is."""
        run, turns, asked = self.run, dict(self.turns), []
        legal = True
        rules = []
        for what, to, from_here in moves:
            here = run if what == "run" else turns.get(what, "none")
            asked.append(
                Transition(
                    what, here if from_here else "succeeded", to, about(1) if what != "run" else {}
                )
            )
            allowed = RUN_MOVES if what == "run" else TURN_MOVES
            legal &= asked[-1].from_ == here and (here, to) in allowed
            if what == "run":
                run = to
            else:
                turns[what] = to
                rules.append(to)
        for to in rules:
            legal &= (run if to in {"pending", "running"} else self.run) == "running"
        legal &= not (run in FINISHED_STATES and "running" in turns.values())

        told = self.store.move("r", asked, "test")

        assert (told == "") == legal, (asked, told)
        if legal:
            self.run, self.turns = run, turns
            self.events += len(moves)

    @invariant()
    def same(self) -> None:
        """State for state, and one event each."""
        assert states(self.store) == (self.run, self.turns)
        assert len(self.store.events("r")) == self.events


Runs.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRuns = Runs.TestCase

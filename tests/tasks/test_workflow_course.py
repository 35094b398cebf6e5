"""What comes next in a run, whatever has ended and how."""

from collections.abc import Iterator
from typing import Any

import pytest

from breakwater.workflows import Definition, Loop, Stage, Until
from breakwater.workflows.progress import (
    Position,
    StageHistory,
    StageRecord,
    StageRun,
    current_position,
    until_outcome,
)

PLAN, CODE, REVIEW, SUM = (Stage(name, "r", "x") for name in ("plan", "code", "review", "sum"))
UNTIL = Until("review", contains="APPROVED")


def walk(definition: Definition, verdicts: list[str]) -> Iterator[str]:
    """Run through it; the reviewer says one verdict after the other."""
    entries: list[StageRecord] = []
    while isinstance(position := current_position(definition, StageHistory(entries)), Position):
        yield position.stage_run.key
        said = verdicts.pop(0) if position.stage is REVIEW else "x"
        until = until_outcome(position, {"text": said, "data": None})
        entries.append(StageRecord(position.stage_run, "succeeded", {"until": until}))
    yield "done" if position is None else "used up"


@pytest.mark.parametrize(
    ("verdicts", "or_fail", "turns"),
    [
        (["APPROVED"], False, "plan:1:1 code:1:1 review:1:1 sum:1:1 done"),
        (
            ["no", "is APPROVED now"], True,
            "plan:1:1 code:1:1 review:1:1 code:2:1 review:2:1 sum:1:1 done",
        ),
        (["no", "no"], False, "plan:1:1 code:1:1 review:1:1 code:2:1 review:2:1 sum:1:1 done"),
        (["no", "no"], True, "plan:1:1 code:1:1 review:1:1 code:2:1 review:2:1 used up"),
    ],
)  # fmt: skip
def test_a_loop_goes_on_until_it_is_so_or_used_up(
    verdicts: list[str], or_fail: bool, turns: str
) -> None:
    """Then what stands behind it follows, unless it was to fail."""
    loop = Loop((CODE, REVIEW), UNTIL, at_most=2, or_fail=or_fail)

    assert " ".join(walk(Definition("w", (PLAN, loop, SUM)), verdicts)) == turns


def test_a_stage_that_stopped_is_where_the_run_stands_and_its_next_try_after_it() -> None:
    """The newest try counts."""
    definition = Definition("w", (PLAN, SUM))
    entries = [StageRecord(StageRun("plan"), "failed")]

    stopped = current_position(definition, StageHistory(entries))
    again = current_position(
        definition, StageHistory([StageRecord(StageRun("plan", attempt=2), "pending"), *entries])
    )

    assert isinstance(stopped, Position)
    assert (stopped.stage_run.key, stopped.state) == ("plan:1:1", "failed")
    assert isinstance(again, Position)
    assert (again.stage_run.key, again.state) == ("plan:1:2", "pending")


def test_a_turn_has_one_task_id_whoever_asks_and_no_other_turn_has_it() -> None:
    """So a repeated enqueue is paid once."""
    ids = {
        StageRun(stage, round_, attempt).task_id(run)
        for stage in ("a", "a:1") for round_ in (1, 2) for attempt in (1, 2) for run in ("r", "s")
    }  # fmt: skip

    assert len(ids) == 16
    assert StageRun("a").task_id("r") in ids


@pytest.mark.parametrize(
    ("equals", "data", "verdict"),
    [
        ({"ok": True}, {"ok": True}, "satisfied"),
        ({"ok": True}, {"ok": 1}, "unsatisfied"),
        ({"ok": 1}, {"ok": True}, "unsatisfied"),
        ({"ok": 1}, {"ok": 1.0}, "satisfied"),
        ({"a.b": "x", "n.0": None}, {"a": {"b": "x"}, "n": [None]}, "satisfied"),
        ({"a.b": "x", "n.0": None}, {"a": {"b": "x"}, "n": []}, "unsatisfied"),
        ({"ok": None}, {}, "unsatisfied"),
        ({"ok": True}, None, "unsatisfied"),
    ],
)
def test_data_is_compared_as_json_field_by_field(
    equals: dict[str, Any], data: Any, verdict: str
) -> None:
    """All must be there and fit; true is not 1."""
    loop = Loop((REVIEW,), Until("review", equals=equals), at_most=2)

    told = until_outcome(Position(REVIEW, StageRun("review"), loop), {"text": "", "data": data})

    assert told == verdict


def test_the_last_round_is_told_as_exhausted() -> None:
    """So whoever looks sees that the run went on all the same."""
    loop = Loop((CODE, REVIEW), UNTIL, at_most=2)
    answer = {"text": "no", "data": None}

    assert until_outcome(Position(REVIEW, StageRun("review", 2), loop), answer) == "exhausted"
    assert until_outcome(Position(CODE, StageRun("code", 2), loop), answer) is None

"""
Decide what comes next in a run, given the stages that have ended; uses no Redis and no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict
from uuid import NAMESPACE_OID, uuid5

from breakwater.result import Result
from breakwater.workflows.definition import Definition, Loop, Stage, Until
from breakwater.workflows.template import find

SATISFIED, UNSATISFIED, EXHAUSTED = "satisfied", "unsatisfied", "exhausted"
"""The outcome of a loop's `until` after a round; exhausted: it does not hold after the last one."""

StageFacts = TypedDict(
    "StageFacts",
    {
        "stage": str, "round": int, "try": int, "role": str, "state": str, "number": int,
        "task_id": str, "provider": str | None, "model": str | None, "cost_usd": str | None,
        "latency_ms": int | None, "finish_reason": str | None, "until": str, "error": str | None,
        "began_ms": int, "ended_ms": int, "who": str,
    },
    total=False,
)  # fmt: skip
"""The stored facts of a stage run; `number` counts the stage runs of a run in their order."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """One run of a stage: the nth attempt in a round of its loop."""

    stage: str
    round: int = 1
    attempt: int = 1
    """Grows when a run is resumed after this stage failed or was cancelled."""

    @property
    def key(self) -> str:
        """Its name in Redis."""
        return f"{self.stage}:{self.round}:{self.attempt}"

    def task_id(self, run: str) -> str:
        """Return the id of its task; always the same, so that the task is paid for once."""
        return str(uuid5(NAMESPACE_OID, f"workflow {run} {self.key}"))


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage run, and what is stored of it."""

    stage_run: StageRun
    state: str
    facts: StageFacts = field(default_factory=StageFacts)


@dataclass(frozen=True, slots=True)
class Position:
    """The place that a run has reached; `state` is `none` if the stage run was never prepared."""

    stage: Stage
    stage_run: StageRun
    loop: Loop | None
    state: str = "none"
    facts: StageFacts = field(default_factory=StageFacts)

    @property
    def is_last_round(self) -> bool:
        """Whether this is the last round that its loop allows."""
        return self.loop is not None and self.stage_run.round == self.loop.at_most


class StageHistory:
    """The stage runs of a run; for each stage and round only the latest attempt counts."""

    def __init__(self, records: Iterable[StageRecord]) -> None:
        self._latest: dict[tuple[str, int], StageRecord] = {}
        for record in sorted(records, key=lambda each: each.stage_run.attempt):
            self._latest[record.stage_run.stage, record.stage_run.round] = record

    def position(self, stage: Stage, round_: int, loop: Loop | None) -> Position | None:
        """Return the position at a stage in a round; None if the stage has succeeded."""
        record = self._latest.get((stage.name, round_))
        if record is None:
            return Position(stage, StageRun(stage.name, round_), loop)
        if record.state == "succeeded":
            return None
        return Position(stage, record.stage_run, loop, record.state, record.facts)

    def until(self, loop: Loop, round_: int) -> str:
        """Return the outcome of a loop's condition after a round that has ended."""
        return self._latest[loop.until.stage, round_].facts["until"]


def initial_stage_runs(definition: Definition) -> list[tuple[Stage, StageRun]]:
    """Return the stage runs with which a run begins: the first of each stage."""
    return [(stage, StageRun(stage.name)) for stage in definition.each()]


def current_position(definition: Definition, history: StageHistory) -> Position | Loop | None:
    """
    Return the place that a run has reached.

    Returns:
        The stage run that comes next, runs, or has failed; or the exhausted loop that fails the
        run; None if nothing is left to do.
    """
    for node in definition.stages:
        if isinstance(node, Stage):
            if position := history.position(node, 1, None):
                return position
        elif (inner := _in_loop(node, history)) is not None:
            return inner
    return None


def _in_loop(loop: Loop, history: StageHistory) -> Position | Loop | None:
    for round_ in range(1, loop.at_most + 1):
        for stage in loop.stages:
            if position := history.position(stage, round_, loop):
                return position
        if history.until(loop, round_) == SATISFIED:
            return None
    if loop.or_fail:
        return loop
    return None


def until_outcome(position: Position, answer: Result) -> str | None:
    """Return the outcome of the loop's condition for an answer; None if it tests another stage."""
    if position.loop is None or position.loop.until.stage != position.stage.name:
        return None
    if _holds(position.loop.until, answer):
        return SATISFIED
    if position.is_last_round:
        return EXHAUSTED
    return UNSATISFIED


def _holds(until: Until, answer: Result) -> bool:
    if until.contains is not None:
        return until.contains in answer["text"]
    return all(
        _equals(answer["data"], path, wanted) for path, wanted in (until.equals or {}).items()
    )


def _equals(data: object, path: str, wanted: object) -> bool:
    try:
        value = find(data, tuple(path.split(".")))
    except LookupError:
        return False
    return bool(value == wanted) and _is_flag(value) == _is_flag(wanted)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)  # 1 == True in Python, but not in JSON

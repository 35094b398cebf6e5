"""
What comes next in a run, by what has come to an end: no Redis, no clock, nothing is decided twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from breakwater.result import Result
from breakwater.workflows.definition import Definition, Loop, Stage, Until
from breakwater.workflows.template import find

SATISFIED, UNSATISFIED, EXHAUSTED = "satisfied", "unsatisfied", "exhausted"
"""What a loop's `until` said of one of its rounds; exhausted: of the last that there may be."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """One time that a stage is run: in this round of its loop, the so-manieth try."""

    stage: str
    round: int = 1
    attempt: int = 1
    """Grows when a run is resumed after this stage failed or was cancelled."""

    @property
    def key(self) -> str:
        """What it is called in Redis."""
        return f"{self.stage}:{self.round}:{self.attempt}"

    def task_id(self, run: str) -> str:
        """Return the id of its task, the same whoever asks: it is paid for once."""
        return str(uuid5(NAMESPACE_OID, f"workflow {run} {self.key}"))


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What is known of a turn."""

    stage_run: StageRun
    state: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: at this turn of this stage; `state` is none if it was never prepared."""

    stage: Stage
    stage_run: StageRun
    loop: Loop | None
    state: str = "none"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_last_round(self) -> bool:
        """Tell whether its loop may have no round after this."""
        return self.loop is not None and self.stage_run.round == self.loop.at_most


class StageHistory:
    """The turns of a run, of each stage and round the latest try."""

    def __init__(self, entries: Iterable[StageRecord]) -> None:
        self._latest: dict[tuple[str, int], StageRecord] = {}
        for entry in sorted(entries, key=lambda each: each.stage_run.attempt):
            self._latest[entry.stage_run.stage, entry.stage_run.round] = entry

    def position(self, stage: Stage, round_: int, loop: Loop | None) -> Position | None:
        """Return where a stage stands in a round; None if it is behind us."""
        entry = self._latest.get((stage.name, round_))
        if entry is None:
            return Position(stage, StageRun(stage.name, round_), loop)
        if entry.state == "succeeded":
            return None
        return Position(stage, entry.stage_run, loop, entry.state, entry.facts)

    def until(self, loop: Loop, round_: int) -> str:
        """Return what a loop's condition said of a round that is behind us."""
        return str(self._latest[loop.until.stage, round_].facts["until"])


def initial_stage_runs(definition: Definition) -> list[tuple[Stage, StageRun]]:
    """Return the turns that a run has from its beginning: each stage's first."""
    return [(stage, StageRun(stage.name)) for stage in definition.each()]


def current_position(definition: Definition, history: StageHistory) -> Position | Loop | None:
    """
    Return where a run stands.

    Returns:
        The turn that is to be run, or runs, or has failed; the loop that is used up and was to
        fail then; None if nothing is left to be done.
    """
    for node in definition.stages:
        if isinstance(node, Stage):
            if position := history.position(node, 1, None):
                return position
        elif (found := _in_loop(node, history)) is not None:
            return found
    return None


def _in_loop(loop: Loop, history: StageHistory) -> Position | Loop | None:
    for round_ in range(1, loop.at_most + 1):
        for stage in loop.stages:
            if position := history.position(stage, round_, loop):
                return position
        if history.until(loop, round_) == SATISFIED:
            return None
    return loop if loop.or_fail else None


def until_outcome(position: Position, answer: Result) -> str | None:
    """Say what the loop's condition makes of an answer; None if it does not ask this stage."""
    if position.loop is None or position.loop.until.stage != position.stage.name:
        return None
    if _holds(position.loop.until, answer):
        return SATISFIED
    return EXHAUSTED if position.is_last_round else UNSATISFIED


def _holds(until: Until, answer: Result) -> bool:
    if until.contains is not None:
        return until.contains in answer["text"]
    return all(
        _equals(answer["data"], path, wanted) for path, wanted in (until.equals or {}).items()
    )


def _equals(data: Any, path: str, wanted: Any) -> bool:
    try:
        found = find(data, tuple(path.split(".")))
    except LookupError:
        return False
    return bool(found == wanted) and _is_flag(found) == _is_flag(wanted)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)  # 1 == True in Python, and not in JSON

"""Which attempts the sinks receive, and what a sink's error changes: nothing."""

from collections.abc import Iterator

import pytest

from breakwater.attempt import Attempt
from tasks.delivery.lease import DeliverySuperseded
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.telemetry import sinks
from tasks.telemetry.sinks import FinishedAttempt
from tests.support.scripted import settings_over

CLAUDE = settings_over("claude").providers["claude"]


class Failing:
    """A sink that always fails."""

    def record(self, finished: FinishedAttempt) -> None:
        raise OSError("the disk is full")


class Remembering(list[FinishedAttempt]):
    """A sink that keeps what it receives."""

    record = list.append


@pytest.fixture
def received() -> Iterator[Remembering]:
    """The attempts that one sink receives, behind another that fails."""
    sink = Remembering()
    sinks.installed += [Failing(), sink]
    yield sink
    del sinks.installed[-2:]


def recorder() -> AttemptRecorder:
    return AttemptRecorder({"task_id": "t", "role": "coder"})


def test_a_sinks_error_changes_nothing_for_the_others(received: Remembering) -> None:
    """The answer is paid for: the next sink and the ledger receive the attempt."""
    attempt, one = Attempt("claude", "m", "succeeded"), recorder()

    one.record(attempt, CLAUDE, "m")

    assert received == [FinishedAttempt({"task_id": "t", "role": "coder"}, attempt, CLAUDE, "m")]
    assert len(one.rows) == 1


def test_an_abandoned_call_that_never_went_out_reaches_no_sink(received: Remembering) -> None:
    """Another delivery had begun, so there was no attempt."""
    one = recorder()

    one.record(Attempt("claude", "m", "failed", DeliverySuperseded.__name__), CLAUDE, "m")
    one.calling(Attempt("claude", "m", "failed", "WorkerLost"))
    one.record(Attempt("claude", "m", "failed", "Cancelled"), CLAUDE, "m")

    assert [finished.attempt.recorded_outcome for finished in received] == ["abandoned"]
    assert len(one.rows) == 1


def test_two_calls_of_one_task_are_told_apart_by_number(received: Remembering) -> None:
    """The end of one call does not hide that the other one went out."""
    one = recorder()
    first = Attempt("claude", "m", "failed", "Cancelled", number=1)
    second = Attempt("claude", "m", "failed", "Cancelled", number=2)

    one.calling(first)
    one.calling(second)
    one.record(second, CLAUDE, "m")
    one.record(first, CLAUDE, "m")

    assert [finished.attempt.number for finished in received] == [2, 1]

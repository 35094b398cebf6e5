"""Who is told, and what their errors change: nothing."""

from collections.abc import Iterator

import pytest

from breakwater.attempt import Attempt
from tasks.delivery.lease import DeliverySuperseded
from tasks.ledger.attempt_recorder import AttemptRecorder
from tasks.telemetry import observers


@pytest.fixture
def told() -> Iterator[list[tuple[str, Attempt]]]:
    """What one observer is told, behind another that fails."""
    seen: list[tuple[str, Attempt]] = []

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    observers.of_attempts += [fail, lambda role, attempt: seen.append((role, attempt))]
    yield seen
    del observers.of_attempts[-2:]


def test_an_observers_error_is_nobody_elses(told: list[tuple[str, Attempt]]) -> None:
    """The answer is paid for; the account is kept and the next one is told."""
    attempt = Attempt("claude", "m", "succeeded")
    recorder = AttemptRecorder({"task_id": "t", "role": "coder"})

    recorder.add(attempt)

    assert told == [("coder", attempt)]
    assert len(recorder.rows) == 1


def test_a_call_that_never_went_out_is_not_told(told: list[tuple[str, Attempt]]) -> None:
    """As in the ledger: another delivery had begun, so there was no attempt."""
    recorder = AttemptRecorder({"task_id": "t", "role": "coder"})

    recorder.add(Attempt("claude", "m", "failed", DeliverySuperseded.__name__))
    recorder.calling(Attempt("claude", "m", "failed", "WorkerLost"))
    recorder.add(Attempt("claude", "m", "failed", "Cancelled"))

    assert [attempt.told for _, attempt in told] == ["abandoned"]

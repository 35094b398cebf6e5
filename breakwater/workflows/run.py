"""The caller's view of a workflow run: read its state, wait, cancel, resume."""

import time
from collections.abc import Mapping
from typing import TypedDict, cast

from celery import states
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as NoAnswer

from breakwater.celery_app import app
from breakwater.errors import BreakwaterError
from breakwater.messaging.journal import whoami
from breakwater.result import Result
from breakwater.workflows import summary
from breakwater.workflows.progress import StageFacts, StageRun
from breakwater.workflows.run_store import FINISHED_STATES, RUN, RunSnapshot, RunStore, Transition
from breakwater.workflows.step import outcome_of, step

POLL_MS = 1000
"""A blocking read waits this long for a change; less than the timeout of a silent connection."""


class StageState(StageFacts, total=False):
    """A stage run as the caller sees it; None for a fact that is not known yet."""


class WorkflowResult(Result):
    """The result of the last stage, with facts of the whole run."""

    workflow: str
    run: str
    stages: list[StageState]


class Overview(TypedDict):
    """A run in a list of runs."""

    workflow: str
    run: str
    state: str
    created_ms: int
    ended_ms: int | None
    cost_usd: str | None


class ErrorInfo(TypedDict):
    """The class and the message of a run's error."""

    type: str
    message: str


class RunState(Overview):
    """The state of a run."""

    error: ErrorInfo | None
    stages: list[StageState]
    events: list[dict[str, str | int]]
    """Each transition, oldest first."""


class Run:
    """
    One run of a workflow.

    Every `RedisError` is passed on unchanged.

    Args:
        id: The id that `Workflow.delay` returned.
    """

    def __init__(self, id: str) -> None:  # noqa: A002 - as in Celery's results
        self.id = id

    def __repr__(self) -> str:
        """Show only the id."""
        return f"Run({self.id!r})"

    def state(self) -> RunState:
        """
        Return the state of the run, as a JSON object.

        Raises:
            UnknownRun: There is no run of this id; runs are deleted after 60 days.
        """
        store = self._store()
        snapshot = store.snapshot(self.id)
        error = None
        if "error" in snapshot.fields:
            stored = store.read(self.id, "error")
            error = stored and _error_info(stored)
        return {
            **overview(snapshot),
            "error": error,
            "stages": stages(snapshot),
            "events": store.events(self.id),
        }

    def get(self, timeout: float | None = None) -> WorkflowResult:
        """
        Wait for the end, and return the last stage's result with facts of the run.

        Args:
            timeout: In seconds; None: no limit.

        Returns:
            The result of `complete`, and `workflow`, `run`, `stages`, `cost_usd` (of all stages).

        Raises:
            BreakwaterError: The error of the stage that failed.
            TaskRevokedError: The run was cancelled.
            TimeoutError: The run has not ended (celery.exceptions).
        """
        store = self._store()
        ends_at = float("inf")
        if timeout is not None:
            ends_at = time.monotonic() + timeout
        newest = "0"
        while (snapshot := store.snapshot(self.id)).state not in FINISHED_STATES:
            if (left_s := ends_at - time.monotonic()) <= 0:
                raise NoAnswer("The operation timed out.")
            newest = store.wait_for_change(
                self.id, newest, max(1, min(POLL_MS, int(left_s * 1000)))
            )
        return self._result(store, snapshot)

    def cancel(self) -> bool:
        """
        Cancel the stage that runs, and start no further one.

        Returns:
            Whether the run is cancelled, by this call or an earlier one; False if it had ended.
        """
        store = self._store()
        while (snapshot := store.snapshot(self.id)).state in {"pending", "running"}:
            moves = [Transition(key, "running", "cancelled") for key in snapshot.running()]
            store.move(self.id, [*moves, Transition(RUN, snapshot.state, "cancelled")], whoami())
        # Revoke also after an earlier cancel: that process may have died before its revoke.
        task_ids = [
            each["task_id"] for each in snapshot.stage_runs.values() if each["state"] == "cancelled"
        ]
        if snapshot.state == "cancelled" and task_ids:
            app.control.revoke(task_ids)
        return snapshot.state == "cancelled"

    def resume(self) -> bool:
        """
        Continue the run: repeat the stage that failed or was cancelled, under a new task id.

        Stages with an answer are not paid for again. If the run is running, its message may be
        lost, so the message is sent again; a second one does no harm.

        Returns:
            Whether the run continues; False if it has succeeded.
        """
        store = self._store()
        while (snapshot := store.snapshot(self.id)).state in {"failed", "cancelled"}:
            again = [_retry(stage_run, facts) for stage_run, facts in _stopped(snapshot)]
            store.move(self.id, [Transition(RUN, snapshot.state, "running"), *again], whoami())
        if snapshot.state == "succeeded":
            return False
        step.apply_async(kwargs={"run": self.id, "again": True})
        return True

    def _result(self, store: RunStore, snapshot: RunSnapshot) -> WorkflowResult:
        if snapshot.state == "cancelled":
            raise TaskRevokedError("cancelled")
        if snapshot.state == "failed":
            raise app.backend.exception_to_python(store.read(self.id, "error"))
        succeeded = [
            key for key, facts in snapshot.stage_runs.items() if facts["state"] == "succeeded"
        ]
        result = {
            **store.read(self.id, succeeded[-1]),
            "workflow": snapshot.name,
            "run": snapshot.run,
            "cost_usd": summary.cost_usd(snapshot.stage_runs.values()),
            "stages": stages(snapshot),
        }
        return cast("WorkflowResult", result)

    def _store(self) -> RunStore:
        return RunStore(app.backend.client)


def overview(snapshot: RunSnapshot) -> Overview:
    """Return the entry of a run for a list of runs."""
    ended_ms = None
    if "ended_ms" in snapshot.fields:
        ended_ms = int(snapshot.fields["ended_ms"])
    return {
        "workflow": snapshot.name,
        "run": snapshot.run,
        "state": snapshot.state,
        "created_ms": int(snapshot.fields["created_ms"]),
        "ended_ms": ended_ms,
        "cost_usd": summary.cost_usd(snapshot.stage_runs.values()),
    }


def stages(snapshot: RunSnapshot) -> list[StageState]:
    """Return the stage runs: first those that have begun, in order, then those to come."""
    kept = ("stage", "round", "try", "role", "state", "task_id", "provider", "model", "cost_usd",
            "latency_ms", "finish_reason", "until", "error",
            "began_ms", "ended_ms", "who")  # fmt: skip
    return [
        cast("StageState", {name: facts.get(name) for name in kept})
        for facts in snapshot.stage_runs.values()
    ]


def _stopped(snapshot: RunSnapshot) -> list[tuple[StageRun, StageFacts]]:
    """Return the next attempt of the stage run that stopped the run, with the facts of the last."""
    latest: dict[tuple[str, int], StageFacts] = {}
    for facts in snapshot.stage_runs.values():
        place = facts["stage"], facts["round"]
        if place not in latest or facts["try"] > latest[place]["try"]:
            latest[place] = facts
    return [
        (StageRun(facts["stage"], facts["round"], facts["try"] + 1), facts)
        for facts in latest.values()
        if facts["state"] in {"failed", "cancelled"}
    ]


def _retry(stage_run: StageRun, facts: StageFacts) -> Transition:
    """
    Prepare another attempt; under the old task id if that has an answer, or may still get one.
    """
    prepared = StageFacts(stage=stage_run.stage, round=stage_run.round, role=facts["role"])
    prepared["try"] = stage_run.attempt
    task_id = facts["task_id"]
    if outcome_of(task_id)[0] in {states.SUCCESS, states.PENDING}:
        prepared["task_id"] = task_id
    return Transition(stage_run.key, "none", "pending", prepared)


def _error_info(stored: Mapping[str, object]) -> ErrorInfo:
    """Return the class and the message of an error; of an error that is not ours only the class."""
    error = app.backend.exception_to_python(stored)
    message = ""
    if isinstance(error, BreakwaterError):
        message = str(error)
    return {"type": type(error).__name__, "message": message}

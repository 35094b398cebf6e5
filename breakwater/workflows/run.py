"""A run in the hands of who started it: look, wait, cancel, resume."""

import time
from collections.abc import Mapping
from typing import Any

from celery import states
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as NoAnswer

from breakwater.celery_app import app
from breakwater.errors import BreakwaterError
from breakwater.messaging.journal import whoami
from breakwater.workflows import summary
from breakwater.workflows.progress import StageRun
from breakwater.workflows.run_store import FINISHED_STATES, RUN, RunSnapshot, RunStore, Transition
from breakwater.workflows.step import outcome_of, step

LOOK_MS = 1000
"""Redis is asked to wait for a change this long at a time: less than a silent answer may take."""


class Run:
    """
    One run of a workflow.

    Every `RedisError` comes out as it is.

    Args:
        id: As `Workflow.delay` gave it.
    """

    def __init__(self, id: str) -> None:  # noqa: A002 - as of Celery's results
        self.id = id

    def __repr__(self) -> str:
        """Show the id alone."""
        return f"Run({self.id!r})"

    def state(self) -> dict[str, Any]:
        """
        Return where the run stands, as JSON.

        Returns:
            `workflow`, `run`, `state`, `created_ms`, `ended_ms`, `cost_usd`, `error` (class and
            message; null if there is none), `stages`, and `events`: each transition.

        Raises:
            UnknownRun: There is none of this id, or it was too long ago.
        """
        store = self._store()
        snapshot = store.snapshot(self.id)
        error = store.read(self.id, "error") if "error" in snapshot.fields else None
        return {**overview(snapshot), "error": error and _shown(error), "stages": stages(snapshot),
                "events": store.events(self.id)}  # fmt: skip

    def get(self, timeout: float | None = None) -> dict[str, Any]:
        """
        Wait for the end, and return the last stage's result with what the run was.

        Args:
            timeout: In seconds; None: for ever.

        Returns:
            The result of `complete`, and `workflow`, `run`, `stages`, `cost_usd` (of all stages).

        Raises:
            BreakwaterError: The error of the stage that failed.
            TaskRevokedError: The run was cancelled.
            TimeoutError: It is not over yet (celery.exceptions).
        """
        store = self._store()
        ends_at = float("inf") if timeout is None else time.monotonic() + timeout
        newest = "0"
        while (snapshot := store.snapshot(self.id)).state not in FINISHED_STATES:
            if (left_s := ends_at - time.monotonic()) <= 0:
                raise NoAnswer("The operation timed out.")
            newest = store.wait_for_change(
                self.id, newest, max(1, min(LOOK_MS, int(left_s * 1000)))
            )
        return self._result(store, snapshot)

    def cancel(self) -> bool:
        """
        Stop what is not paid for yet: the stage that runs is cancelled, none follows.

        Returns:
            Whether the run was cancelled, now or before; not if it was over.
        """
        store = self._store()
        while (snapshot := store.snapshot(self.id)).state in {"pending", "running"}:
            moves = [Transition(key, "running", "cancelled") for key in snapshot.running()]
            store.move(self.id, [*moves, Transition(RUN, snapshot.state, "cancelled")], whoami())
        # Also again: whoever cancelled before may have died before this.
        out = [
            each["task_id"] for each in snapshot.stage_runs.values() if each["state"] == "cancelled"
        ]
        if snapshot.state == "cancelled" and out:
            app.control.revoke(out)
        return snapshot.state == "cancelled"

    def resume(self) -> bool:
        """
        Go on: with the stage that failed or was cancelled, under a new id; or with what runs.

        What has an answer is not paid for again. Of a run that runs, the message may be lost; that
        it is not does no harm.

        Returns:
            Whether there is anything to be done; not if the run succeeded.
        """
        store = self._store()
        while (snapshot := store.snapshot(self.id)).state in {"failed", "cancelled"}:
            again = [move for key, known in _stopped(snapshot) for move in _retry(key, known)]
            store.move(self.id, [Transition(RUN, snapshot.state, "running"), *again], whoami())
        if snapshot.state == "succeeded":
            return False
        step.apply_async(kwargs={"run": self.id, "again": True})
        return True

    def _result(self, store: RunStore, snapshot: RunSnapshot) -> dict[str, Any]:
        if snapshot.state == "cancelled":
            raise TaskRevokedError("cancelled")
        if snapshot.state == "failed":
            raise app.backend.exception_to_python(store.read(self.id, "error"))
        last = [key for key, known in snapshot.stage_runs.items() if known["state"] == "succeeded"][
            -1
        ]
        known = overview(snapshot)
        return {
            **store.read(self.id, last),
            **{name: known[name] for name in ("workflow", "run", "cost_usd")},
            "stages": stages(snapshot),
        }

    def _store(self) -> RunStore:
        return RunStore(app.backend.client)


def overview(snapshot: RunSnapshot) -> dict[str, Any]:
    """Return what a list of runs shows of one."""
    return {
        "workflow": snapshot.name,
        "run": snapshot.run,
        "state": snapshot.state,
        "created_ms": int(snapshot.fields["created_ms"]),
        "ended_ms": int(snapshot.fields["ended_ms"]) if "ended_ms" in snapshot.fields else None,
        "cost_usd": summary.cost_usd(snapshot.stage_runs.values()),
    }


def stages(snapshot: RunSnapshot) -> list[dict[str, Any]]:
    """Return each turn: those that have begun in their order, then those to come."""
    kept = ("stage", "round", "try", "role", "state", "task_id", "provider", "model", "cost_usd",
            "latency_ms", "finish_reason", "until", "error",
            "began_ms", "ended_ms", "who")  # fmt: skip
    return [{name: known.get(name) for name in kept} for known in snapshot.stage_runs.values()]


def _stopped(snapshot: RunSnapshot) -> list[tuple[StageRun, Mapping[str, Any]]]:
    """Return the turn at which a run was stopped, if it was stopped in one."""
    latest: dict[tuple[str, int], Mapping[str, Any]] = {}
    for known in snapshot.stage_runs.values():
        at = (known["stage"], known["round"])
        if at not in latest or known["try"] > latest[at]["try"]:
            latest[at] = known
    return [
        (StageRun(known["stage"], known["round"], known["try"] + 1), known)
        for known in latest.values()
        if known["state"] in {"failed", "cancelled"}
    ]


def _retry(stage_run: StageRun, known: Mapping[str, Any]) -> list[Transition]:
    """Prepare another try; under the old id if that was answered after all, or may be yet."""
    about = {
        "stage": stage_run.stage,
        "round": stage_run.round,
        "try": stage_run.attempt,
        "role": known["role"],
    }
    task_id = known["task_id"]
    if outcome_of(task_id)[0] in {states.SUCCESS, states.PENDING}:
        about["task_id"] = task_id
    return [Transition(stage_run.key, "none", "pending", about)]


def _shown(error: Mapping[str, Any]) -> dict[str, str]:
    """Return class and message of an error; of one that is not ours the class alone."""
    raised = app.backend.exception_to_python(error)
    message = str(raised) if isinstance(raised, BreakwaterError) else ""
    return {"type": type(raised).__name__, "message": message}

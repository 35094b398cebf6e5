"""
The Celery task `workflow`: it runs after each stage, and takes the run to its next stage.

The task may be killed at any line, run twice, or run late. It therefore reads the position of the
run first. Each transition is one script, which refuses a transition whose start is out of date.
Each stage run has one task id, and is paid for once. A stage run begins before its task is
enqueued. So a run whose message was lost stands at a stage run that is `running`, and `Run.resume`
enqueues the same id again.
"""

from collections.abc import Mapping
from typing import Any, cast

from celery import states
from celery.exceptions import Ignore, Reject, TaskRevokedError
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from breakwater import executors
from breakwater.celery_app import app
from breakwater.completion import complete
from breakwater.errors import BadTask, LoopExhausted, UnknownRun
from breakwater.messaging.names import WORKFLOW_TASK
from breakwater.redis.process_name import process_name
from breakwater.result import Result, read_result
from breakwater.workflows import summary
from breakwater.workflows.definition import Definition, Loop
from breakwater.workflows.progress import Position, StageFacts, current_position, until_outcome
from breakwater.workflows.run_store import (
    FINISHED_STATES,
    RUN,
    RunSnapshot,
    RunStore,
    Transition,
    initial_facts,
)
from breakwater.workflows.step import Step, outcome_of, step
from breakwater.workflows.template import INPUT, Reference, parse, render

ENQUEUED, ENDED = "enqueued", "ended"


def execute(answer: Mapping[str, object] | None, run: str, turn: str, again: bool) -> None:
    """Advance a run: the body of the Celery task `workflow`, with its arguments."""
    try:
        Advance(RunStore(app.backend.client), run).advance(turn, answer, again=again)
    except UnknownRun as gone:
        raise Ignore(str(gone)) from None
    except (RedisError, OperationalError) as error:
        # Each step is whole, so the requeued message continues where the run stands.
        raise Reject(f"Redis is away: {type(error).__name__}", requeue=True) from None


Step.Request = "tasks.delivery.request:QuietRequest"
executors.install(WORKFLOW_TASK, execute)


class Advance:
    """
    Advances one run.

    Args:
        store: Keeps the runs.
        run: The id of the run.
    """

    def __init__(self, store: RunStore, run: str) -> None:
        self._store = store
        self._run = run
        self._who = process_name()
        self._refused = ""

    def advance(self, turn: str, answer: Mapping[str, object] | None, *, again: bool) -> None:
        """
        Make transitions until a stage's task is enqueued, or the run is over.

        Args:
            turn: The key of the stage run that has ended; empty at the begin of a run.
            answer: Its result; None if it failed, or if the run begins or is resumed.
            again: Enqueue the task of a running stage run even if it was enqueued before.

        Raises:
            UnknownRun: The run does not exist any more.
            RedisError: Redis is away; the call can be repeated.
        """
        before: RunSnapshot | None = None
        while (snapshot := self._look()).state not in FINISHED_STATES:
            try:
                if self._refused and before and snapshot.fields == before.fields:
                    raise RuntimeError(f"run {self._run} cannot go on: {self._refused}")
                before, self._refused = snapshot, ""
                if self._step(snapshot, turn, answer, again=again):
                    return
            except (RedisError, OperationalError, UnknownRun):
                raise
            except (
                Exception
            ) as fault:  # such as a missing key: the run shows it, and can be resumed
                self._fail(snapshot, fault)
                raise

    def _step(
        self, snapshot: RunSnapshot, turn: str, answer: Mapping[str, object] | None, *, again: bool
    ) -> bool:
        """Make one transition; return whether a stage's task is enqueued, so that this is all."""
        definition = self._store.definition(self._run)
        position = current_position(definition, snapshot.history)
        if not isinstance(position, Position):
            self._finish(snapshot, position)
        elif position.state == "running":
            if position.stage_run.key != turn:
                answer = None  # of an earlier stage run: this message came late, or twice
            return self._end(snapshot, definition, position, answer, again=again) == ENQUEUED
        else:
            self._begin(snapshot, position)
        return False

    def _begin(self, snapshot: RunSnapshot, position: Position) -> None:
        """Begin a stage run; the next step finds it running, and enqueues its task."""
        key, task_id = position.stage_run.key, position.stage_run.task_id(self._run)
        transitions = []
        if snapshot.state == "pending":
            transitions.append(Transition(RUN, "pending", "running"))
        if position.state == "none":
            facts = initial_facts(position.stage, position.stage_run)
            transitions.append(Transition(key, "none", "pending", facts))
        # A resumption sets the id of the attempt before, if that may still be answered.
        facts = StageFacts(task_id=position.facts.get("task_id", task_id))
        transitions.append(Transition(key, "pending", "running", facts))
        self._apply(transitions)

    def _end(
        self,
        snapshot: RunSnapshot,
        definition: Definition,
        position: Position,
        answer: Mapping[str, object] | None,
        *,
        again: bool,
    ) -> str:
        """End a running stage run if its task has ended; else make sure that it is enqueued."""
        task_id = position.facts["task_id"]
        if answer:
            self._succeed(position, read_result(answer))
            return ENDED
        state, outcome = outcome_of(task_id)
        if state == states.PENDING:
            if again or snapshot.fields.get("sent") != task_id:
                try:
                    self._enqueue(snapshot, definition, position)
                except BadTask as fault:
                    self._stop(position, fault)
                    return ENDED
            return ENQUEUED
        if state == states.SUCCESS:
            self._succeed(position, read_result(outcome))
        else:
            self._stop(position, outcome)
        return ENDED

    def _enqueue(self, snapshot: RunSnapshot, definition: Definition, position: Position) -> None:
        stage, key, task_id = position.stage, position.stage_run.key, position.facts["task_id"]
        prompt = render(
            stage.prompt, self._store.input(self._run), self._answers(snapshot, stage.prompt)
        )
        metadata = {
            **cast("Mapping[str, object]", stage.options.get("metadata") or {}),
            "workflow": definition.name, "run": self._run,
            "stage": stage.name, "round": position.stage_run.round,
        }  # fmt: skip
        next_step: Any = step  # Celery's decorators are untyped
        complete.apply_async(
            (stage.role, prompt),
            {**stage.options, "metadata": metadata},
            task_id=task_id,
            link=next_step.s(run=self._run, turn=key),
            link_error=next_step.si(run=self._run, turn=key),
        )
        self._store.mark_sent(self._run, task_id)

    def _answers(self, snapshot: RunSnapshot, template: str) -> Mapping[str, Any]:
        """Read the latest answers of the stages that a prompt refers to."""
        wanted = {piece.name for piece in parse(template) if isinstance(piece, Reference)} - {INPUT}
        keys = {
            facts["stage"]: key
            for key, facts in snapshot.stage_runs.items()
            if facts["state"] == "succeeded" and facts["stage"] in wanted
        }
        return self._store.answers(self._run, keys)

    def _succeed(self, position: Position, result: Result) -> None:
        facts = summary.of_answer(result, until_outcome(position, result))
        key = position.stage_run.key
        self._apply([Transition(key, "running", "succeeded", facts)], {key: dict(result)})

    def _stop(self, position: Position, error: Exception) -> None:
        """End a stage run that failed or was cancelled, and the run with it."""
        key = position.stage_run.key
        if isinstance(error, TaskRevokedError):
            transitions = [
                Transition(key, "running", "cancelled"),
                Transition(RUN, "running", "cancelled"),
            ]
        else:
            transitions = [
                Transition(key, "running", "failed", summary.of_error(error)),
                Transition(RUN, "running", "failed", {"error": type(error).__name__}),
            ]
        self._apply(transitions, {"error": error_as_json(error)})

    def _finish(self, snapshot: RunSnapshot, exhausted: Loop | None) -> None:
        """End the run; as failed if a loop was exhausted."""
        if exhausted is None:
            self._apply([Transition(RUN, snapshot.state, "succeeded")])
            return
        stage = exhausted.until.stage
        self._fail(
            snapshot,
            LoopExhausted(
                f"the loop of stage {stage!r} ended after {exhausted.at_most} rounds, "
                f"and its `until` never held"
            ),
        )

    def _fail(self, snapshot: RunSnapshot, error: Exception) -> None:
        """Fail a run that cannot go on; a task that is enqueued may still be answered."""
        facts = summary.of_error(error)
        transitions = [Transition(key, "running", "failed", facts) for key in snapshot.running()]
        reason = StageFacts(error=type(error).__name__)
        transitions.append(Transition(RUN, snapshot.state, "failed", reason))
        self._apply(transitions, {"error": error_as_json(error)})

    def _apply(
        self, transitions: list[Transition], content: Mapping[str, object] | None = None
    ) -> None:
        """Make transitions. If another worker was quicker they are refused, and are read again."""
        self._refused = self._store.move(self._run, transitions, self._who, content)

    def _look(self) -> RunSnapshot:
        """Read the run, and log each stage run that has ended and is not logged yet."""
        import structlog  # noqa: PLC0415 - only a worker has a log

        snapshot = self._store.snapshot(self._run)
        for key in snapshot.unlogged:
            if self._store.claim_log_line(self._run, key):
                line = summary.line(snapshot.name, self._run, snapshot.stage_runs[key])
                structlog.get_logger("breakwater").info("stage", **line)
        return snapshot


def error_as_json(error: Exception) -> dict[str, object]:
    """Return an error as JSON, as `app.backend.exception_to_python` reads it."""
    prepared: dict[str, object] = app.backend.prepare_exception(error, serializer="json")
    return prepared

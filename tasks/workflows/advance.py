"""
The Celery task `workflow`: it stands behind each stage, and does what comes next.

It may be killed anywhere, come twice, or come late: it reads where the run stands, every transition
is one script that refuses what is not so any more, and a stage's task has an id of its own that is
paid for once. A stage is begun before it is enqueued; so a run that has lost its message stands at
a turn that is running, and whoever asks again (`Run.resume`) enqueues the same id.
"""

from collections.abc import Mapping
from typing import Any

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
from breakwater.workflows.progress import Position, current_position, until_outcome
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


def execute(answer: Any, run: str, turn: str, again: bool) -> None:
    """Do what comes next in a run, as `workflow` has it."""
    try:
        Advance(RunStore(app.backend.client), run).go_on(turn, answer, again=again)
    except UnknownRun as gone:
        raise Ignore(str(gone)) from None
    except (RedisError, OperationalError) as error:
        # Nothing is half done; the message goes back and finds the run where it stands.
        raise Reject(f"Redis is away: {type(error).__name__}", requeue=True) from None


Step.Request = "tasks.delivery.request:QuietRequest"
executors.install(WORKFLOW_TASK, execute)


class Advance:
    """
    One run, and what comes next in it.

    Args:
        store: Of the runs.
        run: Its id.
    """

    def __init__(self, store: RunStore, run: str) -> None:
        self._store = store
        self._run = run
        self._who = process_name()
        self._refused = ""

    def go_on(self, turn: str, answer: Any, *, again: bool) -> None:
        """
        Go on until a stage's task is out, or the run is over.

        Raises:
            UnknownRun: There is no such run any more.
            RedisError: Redis is away; asking again does no harm.
        """
        before: RunSnapshot | None = None
        while (snapshot := self._look()).state not in FINISHED_STATES:
            try:
                if self._refused and before and snapshot.fields == before.fields:
                    raise RuntimeError(f"run {self._run} cannot go on: {self._refused}")
                before, self._refused = snapshot, ""
                if self._is_out(snapshot, turn, answer, again=again):
                    return
            except (RedisError, OperationalError, UnknownRun):
                raise
            except Exception as fault:  # such as a key that is not here: shown, and can be resumed
                self._fail(snapshot, fault)
                raise

    def _is_out(self, snapshot: RunSnapshot, turn: str, answer: Any, *, again: bool) -> bool:
        """Do one thing; tell whether a stage's task is out, so that nothing is left to be done."""
        definition = self._store.definition(self._run)
        position = current_position(definition, snapshot.history)
        if not isinstance(position, Position):
            self._finish(snapshot, position)
        elif position.state == "running":
            mine = answer if position.stage_run.key == turn else None
            return self._end(snapshot, definition, position, mine, again=again) == ENQUEUED
        else:
            self._begin(snapshot, position)
        return False

    def _begin(self, snapshot: RunSnapshot, position: Position) -> None:
        """Begin a turn; its task is enqueued when it is found running."""
        key, task_id = position.stage_run.key, position.stage_run.task_id(self._run)
        moves = [Transition(RUN, "pending", "running")] if snapshot.state == "pending" else []
        if position.state == "none":
            moves.append(
                Transition(
                    key, "none", "pending", initial_facts(position.stage, position.stage_run)
                )
            )
        # A resumption prepares it with the id of the try before, if that may be answered yet.
        about = {"task_id": position.facts.get("task_id", task_id)}
        moves.append(Transition(key, "pending", "running", about))
        self._move(moves)

    def _end(
        self,
        snapshot: RunSnapshot,
        definition: Definition,
        position: Position,
        answer: Any,
        *,
        again: bool,
    ) -> str:
        """End a turn that runs, if its task has come to an end; else see that it is enqueued."""
        task_id = position.facts["task_id"]
        state, outcome = (states.SUCCESS, answer) if answer else outcome_of(task_id)
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
        about = {
            "workflow": definition.name, "run": self._run,
            "stage": stage.name, "round": position.stage_run.round,
        }  # fmt: skip
        options = {**stage.options, "metadata": {**(stage.options.get("metadata") or {}), **about}}
        behind: Any = step
        complete.apply_async(
            (stage.role, prompt),
            options,
            task_id=task_id,
            link=behind.s(run=self._run, turn=key),
            link_error=behind.si(run=self._run, turn=key),
        )
        self._store.mark_sent(self._run, task_id)

    def _answers(self, snapshot: RunSnapshot, template: str) -> dict[str, Any]:
        """Read the latest answers of the stages that a prompt refers to."""
        wanted = {piece.name for piece in parse(template) if isinstance(piece, Reference)} - {INPUT}
        keys = {
            facts_["stage"]: key
            for key, facts_ in snapshot.stage_runs.items()
            if facts_["state"] == "succeeded" and facts_["stage"] in wanted
        }
        return self._store.answers(self._run, keys)

    def _succeed(self, position: Position, result: Result) -> None:
        known = summary.of_answer(result, until_outcome(position, result))
        key = position.stage_run.key
        self._move([Transition(key, "running", "succeeded", known)], {key: dict(result)})

    def _stop(self, position: Position, error: Exception) -> None:
        """End a turn, and the run with it, that failed or was cancelled."""
        to = "cancelled" if isinstance(error, TaskRevokedError) else "failed"
        known = {} if to == "cancelled" else summary.of_error(error)
        key = position.stage_run.key
        moves = [
            Transition(key, "running", to, known),
            Transition(RUN, "running", to, _named(error, to)),
        ]
        self._move(moves, {"error": told(error)})

    def _finish(self, snapshot: RunSnapshot, exhausted: Loop | None) -> None:
        if exhausted is None:
            self._move([Transition(RUN, snapshot.state, "succeeded")])
            return
        stage = exhausted.until.stage
        self._fail(
            snapshot,
            LoopExhausted(
                f"the loop of stage {stage!r} was used up after {exhausted.at_most} rounds, "
                f"and what it waited for was never so"
            ),
        )

    def _fail(self, snapshot: RunSnapshot, error: Exception) -> None:
        """Fail a run that nobody here can go on with; what is out may be answered all the same."""
        known = summary.of_error(error)
        moves = [Transition(key, "running", "failed", known) for key in snapshot.running()]
        moves.append(Transition(RUN, snapshot.state, "failed", _named(error, "failed")))
        self._move(moves, {"error": told(error)})

    def _move(self, moves: list[Transition], says: Mapping[str, Any] | None = None) -> None:
        """Transition; if it is refused somebody was quicker, and we look again."""
        self._refused = self._store.move(self._run, moves, self._who, says)

    def _look(self) -> RunSnapshot:
        """Read the run, and write the line of each stage that has ended and has none yet."""
        import structlog  # noqa: PLC0415 - producers import this module, and have no log

        snapshot = self._store.snapshot(self._run)
        for key in snapshot.unlogged:
            if self._store.claim_log_line(self._run, key):
                line = summary.line(snapshot.name, self._run, snapshot.stage_runs[key])
                structlog.get_logger("breakwater").info("stage", **line)
        return snapshot


def told(error: Exception) -> dict[str, Any]:
    """Write an error as JSON, for `app.backend.exception_to_python`."""
    prepared: dict[str, Any] = app.backend.prepare_exception(error, serializer="json")
    return prepared


def _named(error: Exception, to: str) -> dict[str, str]:
    return {"error": type(error).__name__} if to == "failed" else {}

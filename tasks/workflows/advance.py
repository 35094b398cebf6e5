"""
The Celery task `workflow`: it stands behind each stage, and does what comes next.

It may be killed anywhere, come twice, or come late: it reads where the run stands, every transition
is one script that refuses what is not so any more, and a stage's task has an id of its own that is
paid for once. A stage is begun before it is enqueued; so a run that has lost its message stands at
a turn that is running, and whoever asks again (`Run.resume`) enqueues the same id.
"""

import os
import socket
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
from breakwater.messaging.names import STEP
from breakwater.workflows import summary
from breakwater.workflows.definition import Definition, Loop
from breakwater.workflows.progress import Place, current, judged
from breakwater.workflows.run_store import OVER, RUN, Move, Snapshot, Store, facts_of
from breakwater.workflows.step import Step, outcome_of, step
from breakwater.workflows.template import INPUT, Reference, parse, render

ENQUEUED, ENDED = "enqueued", "ended"


def execute(answer: Any, run: str, turn: str, again: bool) -> None:
    """Do what comes next in a run, as `workflow` has it."""
    try:
        Advance(Store(app.backend.client), run).go_on(turn, answer, again=again)
    except UnknownRun as gone:
        raise Ignore(str(gone)) from None
    except (RedisError, OperationalError) as error:
        # Nothing is half done; the message goes back and finds the run where it stands.
        raise Reject(f"Redis is away: {type(error).__name__}", requeue=True) from None


Step.Request = "tasks.delivery.request:QuietRequest"
executors.install(STEP, execute)


class Advance:
    """
    One run, and what comes next in it.

    Args:
        store: Of the runs.
        run: Its id.
    """

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._who = f"{socket.gethostname()}:{os.getpid()}"
        self._refused = ""

    def go_on(self, turn: str, answer: Any, *, again: bool) -> None:
        """
        Go on until a stage's task is out, or the run is over.

        Raises:
            UnknownRun: There is no such run any more.
            RedisError: Redis is away; asking again does no harm.
        """
        before: Snapshot | None = None
        while (seen := self._look()).state not in OVER:
            try:
                if self._refused and before and seen.fields == before.fields:
                    raise RuntimeError(f"run {self._run} cannot go on: {self._refused}")
                before, self._refused = seen, ""
                if self._is_out(seen, turn, answer, again=again):
                    return
            except (RedisError, OperationalError, UnknownRun):
                raise
            except Exception as fault:  # such as a key that is not here: shown, and can be resumed
                self._fail(seen, fault)
                raise

    def _is_out(self, seen: Snapshot, turn: str, answer: Any, *, again: bool) -> bool:
        """Do one thing; tell whether a stage's task is out, so that nothing is left to be done."""
        definition = self._store.definition(self._run)
        place = current(definition, seen.entries)
        if not isinstance(place, Place):
            self._finish(seen, place)
        elif place.state == "running":
            mine = answer if place.turn.key == turn else None
            return self._end(seen, definition, place, mine, again=again) == ENQUEUED
        else:
            self._begin(seen, place)
        return False

    def _begin(self, seen: Snapshot, place: Place) -> None:
        """Begin a turn; its task is enqueued when it is found running."""
        key, task_id = place.turn.key, place.turn.task_id(self._run)
        moves = [Move(RUN, "pending", "running")] if seen.state == "pending" else []
        if place.state == "none":
            moves.append(Move(key, "none", "pending", facts_of(place.stage, place.turn)))
        # A resumption prepares it with the id of the try before, if that may be answered yet.
        about = {"task_id": place.facts.get("task_id", task_id)}
        moves.append(Move(key, "pending", "running", about))
        self._move(moves)

    def _end(
        self, seen: Snapshot, definition: Definition, place: Place, answer: Any, *, again: bool
    ) -> str:
        """End a turn that runs, if its task has come to an end; else see that it is enqueued."""
        task_id = place.facts["task_id"]
        state, outcome = (states.SUCCESS, answer) if answer else outcome_of(task_id)
        if state == states.PENDING:
            if again or seen.fields.get("sent") != task_id:
                try:
                    self._enqueue(seen, definition, place)
                except BadTask as fault:
                    self._stop(place, fault)
                    return ENDED
            return ENQUEUED
        if state == states.SUCCESS:
            self._succeed(place, outcome)
        else:
            self._stop(place, outcome)
        return ENDED

    def _enqueue(self, seen: Snapshot, definition: Definition, place: Place) -> None:
        stage, key, task_id = place.stage, place.turn.key, place.facts["task_id"]
        prompt = render(
            stage.prompt, self._store.input(self._run), self._answers(seen, stage.prompt)
        )
        about = {
            "workflow": definition.name, "run": self._run,
            "stage": stage.name, "round": place.turn.round,
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
        self._store.sent(self._run, task_id)

    def _answers(self, seen: Snapshot, template: str) -> dict[str, Any]:
        """Read the latest answers of the stages that a prompt refers to."""
        wanted = {piece.name for piece in parse(template) if isinstance(piece, Reference)} - {INPUT}
        keys = {
            facts_["stage"]: key
            for key, facts_ in seen.turns.items()
            if facts_["state"] == "succeeded" and facts_["stage"] in wanted
        }
        return self._store.answers(self._run, keys)

    def _succeed(self, place: Place, result: Mapping[str, Any]) -> None:
        known = summary.of_answer(result, judged(place, result))
        key = place.turn.key
        self._move([Move(key, "running", "succeeded", known)], {key: dict(result)})

    def _stop(self, place: Place, error: Exception) -> None:
        """End a turn, and the run with it, that failed or was cancelled."""
        to = "cancelled" if isinstance(error, TaskRevokedError) else "failed"
        known = {} if to == "cancelled" else summary.of_error(error)
        key = place.turn.key
        moves = [Move(key, "running", to, known), Move(RUN, "running", to, _named(error, to))]
        self._move(moves, {"error": told(error)})

    def _finish(self, seen: Snapshot, used_up: Loop | None) -> None:
        if used_up is None:
            self._move([Move(RUN, seen.state, "succeeded")])
            return
        stage = used_up.until.stage
        self._fail(
            seen,
            LoopExhausted(
                f"the loop of stage {stage!r} was used up after {used_up.at_most} rounds, "
                f"and what it waited for was never so"
            ),
        )

    def _fail(self, seen: Snapshot, error: Exception) -> None:
        """Fail a run that nobody here can go on with; what is out may be answered all the same."""
        known = summary.of_error(error)
        moves = [Move(key, "running", "failed", known) for key in seen.running()]
        moves.append(Move(RUN, seen.state, "failed", _named(error, "failed")))
        self._move(moves, {"error": told(error)})

    def _move(self, moves: list[Move], says: Mapping[str, Any] | None = None) -> None:
        """Move; if it is refused somebody was quicker, and we look again."""
        self._refused = self._store.move(self._run, moves, self._who, says)

    def _look(self) -> Snapshot:
        """Read the run, and write the line of each stage that has ended and has none yet."""
        import structlog  # noqa: PLC0415 - producers import this module, and have no log

        seen = self._store.look(self._run)
        for key in seen.untold:
            if self._store.tells(self._run, key):
                line = summary.line(seen.name, self._run, seen.turns[key])
                structlog.get_logger("breakwater").info("stage", **line)
        return seen


def told(error: Exception) -> dict[str, Any]:
    """Write an error as JSON, for `app.backend.exception_to_python`."""
    prepared: dict[str, Any] = app.backend.prepare_exception(error, serializer="json")
    return prepared


def _named(error: Exception, to: str) -> dict[str, str]:
    return {"error": type(error).__name__} if to == "failed" else {}

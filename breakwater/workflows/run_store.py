"""
Runs in Redis: each transition is one script and one round trip.

The head of `scripts/workflow.lua` explains the keys. The content of a run (its definition, input,
answers and error) is encrypted if there are encryption keys. Every `RedisError` is passed on
unchanged.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, cast

import redis

from breakwater.calls.value_types import NAME
from breakwater.errors import UnknownRun
from breakwater.redis.encryption import opened, seal
from breakwater.redis.script_arguments import named
from breakwater.redis.text import to_text
from breakwater.result import Result
from breakwater.workflows.definition import Definition, Stage
from breakwater.workflows.progress import StageFacts, StageHistory, StageRecord, StageRun

INDEX = "workflows"
RUN = "run"
"""The name of the run itself in a transition."""
FINISHED_STATES = ("succeeded", "failed", "cancelled")
TURN, LOGGED = "turn:", "told:"
"""Prefixes of fields: the facts of a stage run, and the mark that its log line was written."""
PAGE_SIZE = 100
Reply = Any
"""A reply of Redis, as redis-py returns it."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A requested transition of the run, or of the stage run of this key."""

    key: str
    from_: str
    to: str
    facts: StageFacts = field(default_factory=StageFacts)

    def as_dict(self) -> dict[str, object]:
        """Return the transition in the format of the script."""
        return {"what": self.key, "from": self.from_, "to": self.to, "facts": dict(self.facts)}


@dataclass(frozen=True)
class RunSnapshot:
    """The state of a run in Redis at one moment, without its content."""

    run: str
    fields: Mapping[str, str]

    @property
    def state(self) -> str:
        """The state of the run."""
        return self.fields["state"]

    @property
    def name(self) -> str:
        """The name of the workflow."""
        return self.fields["name"]

    @cached_property
    def stage_runs(self) -> dict[str, StageFacts]:
        """The stage runs by key: those that have begun, in order, then those that are prepared."""
        facts = {
            name.removeprefix(TURN): cast("StageFacts", json.loads(text))
            for name, text in self.fields.items()
            if name.startswith(TURN)
        }
        return dict(sorted(facts.items(), key=lambda item: item[1].get("number", float("inf"))))

    @property
    def history(self) -> StageHistory:
        """The stage runs, as `current_position` reads them."""
        return StageHistory(
            StageRecord(
                StageRun(facts["stage"], facts["round"], facts["try"]), facts["state"], facts
            )
            for facts in self.stage_runs.values()
        )

    @property
    def unlogged(self) -> list[str]:
        """The keys of the stage runs that have ended without a log line."""
        return [
            key
            for key, facts in self.stage_runs.items()
            if facts["state"] in FINISHED_STATES and LOGGED + key not in self.fields
        ]

    def running(self) -> dict[str, StageFacts]:
        """Return the stage runs whose tasks are enqueued or run."""
        return {key: facts for key, facts in self.stage_runs.items() if facts["state"] == "running"}


@cache
def packaged() -> tuple[str, str]:
    """Read the complete scripts start and move; each begins with their shared functions."""
    folder = files("breakwater.workflows") / "scripts"
    shared, start, move = (
        (folder / f"{name}.lua").read_text() for name in ("workflow", "start", "move")
    )
    return shared + start, shared + move


class RunStore:
    """
    Store runs in Redis.

    Args:
        client: Any redis-py client; used with its own timeouts and retries.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._start, self._move = map(client.register_script, packaged())

    def start(
        self,
        run: str,
        definition: Definition,
        run_input: str,
        stage_runs: Iterable[tuple[Stage, StageRun]],
        who: str,
    ) -> bool:
        """Start a run; return False if a run of this id exists."""
        prepared = [
            word
            for stage, stage_run in stage_runs
            for word in (
                stage_run.key,
                json.dumps({**initial_facts(stage, stage_run), "state": "pending"}),
            )
        ]
        is_new = self._start(
            keys=keys_of(run),
            args=[
                named(id=run, name=definition.name, who=who, turns=prepared),
                seal(json.dumps(definition.as_dict())),
                seal(run_input),
            ],
        )
        return bool(is_new)

    def move(
        self,
        run: str,
        moves: Sequence[Transition],
        who: str,
        content: Mapping[str, object] | None = None,
    ) -> str:
        """
        Make all transitions of a run and of its stage runs, or none of them.

        Args:
            content: JSON values to store with them, by field of `workflow:ID:answers`.

        Returns:
            Empty; or the reason of a refusal, and nothing has changed.
        """
        words = [
            word
            for name, value in (content or {}).items()
            for word in (name, seal(json.dumps(value)))
        ]
        wanted = json.dumps([move.as_dict() for move in moves])
        return to_text(self._move(keys=keys_of(run), args=[who, wanted, *words]))

    def snapshot(self, run: str) -> RunSnapshot:
        """
        Read a run.

        Raises:
            UnknownRun: There is no run of this id; runs are deleted after 60 days.
        """
        fields: dict[str, str] = {}
        if NAME.fullmatch(run):  # otherwise it may be the name of another key
            fields = self._fields(run)
        if not fields:
            raise UnknownRun(
                f"no run {run[:80]!r}; `breakwater workflows` lists those of the last 60 days"
            )
        return RunSnapshot(run, fields)

    def definition(self, run: str) -> Definition:
        """Read the definition of a run."""
        return Definition.from_dict(self.read(run, "definition"))

    def input(self, run: str) -> str:
        """Read the input of a run."""
        return opened(to_text(self.client.hget(keys_of(run)[1], "input")))

    def read(self, run: str, name: str) -> Reply:
        """Read one JSON value of a run's content; None if there is none."""
        sealed = self.client.hget(keys_of(run)[1], name)
        if sealed is None:
            return None
        return json.loads(opened(to_text(sealed)))

    def answers(self, run: str, keys: Mapping[str, str]) -> dict[str, Result]:
        """Read the answers of stage runs; `keys` has their keys by the name of the stage."""
        if not keys:
            return {}
        values = cast("list[bytes]", self.client.hmget(keys_of(run)[1], list(keys.values())))
        return {
            name: json.loads(opened(to_text(each)))
            for name, each in zip(keys, values, strict=True)
            if each is not None
        }

    def mark_sent(self, run: str, task_id: str) -> None:
        """Record that a stage's task is in its queue."""
        self.client.hset(keys_of(run)[0], "sent", task_id)

    def claim_log_line(self, run: str, key: str) -> bool:
        """Return whether the caller must log the end of a stage run: only the first one must."""
        return bool(self.client.hsetnx(keys_of(run)[0], LOGGED + key, 1))

    def events(self, run: str) -> list[dict[str, str | int]]:
        """Read the transitions of a run, oldest first."""
        entries = cast("list[Reply]", self.client.xrange(keys_of(run)[2]))
        events = [_texts(fields) for _, fields in entries]
        return [{**event, "at_ms": int(event["at_ms"])} for event in events]

    def wait_for_change(self, run: str, since: str, within_ms: int) -> str:
        """Wait for a transition after the entry `since`; return the id of the newest entry."""
        reply: Reply = self.client.xread({keys_of(run)[2]: since}, block=within_ms)
        if not reply:
            return since
        return to_text(reply[0][1][-1][0])

    def runs(self, count: int) -> list[RunSnapshot]:
        """Return the newest runs."""
        snapshots: list[RunSnapshot] = []
        first = 0
        while len(snapshots) < count:
            page = cast(
                "list[bytes]", self.client.zrange(INDEX, first, first + PAGE_SIZE - 1, desc=True)
            )
            for run in map(to_text, page):
                if fields := self._fields(run):  # otherwise it has expired
                    snapshots.append(RunSnapshot(run, fields))
            if len(page) < PAGE_SIZE:
                break
            first += PAGE_SIZE
        return snapshots[:count]

    def _fields(self, run: str) -> dict[str, str]:
        return _texts(cast("dict[bytes, bytes]", self.client.hgetall(keys_of(run)[0])))


def keys_of(run: str) -> list[str]:
    """Return the names of a run's keys."""
    return [f"workflow:{run}", f"workflow:{run}:answers", f"workflow:{run}:events"]


def initial_facts(stage: Stage, stage_run: StageRun) -> StageFacts:
    """Return the facts that a stage run has from its beginning."""
    return {
        "stage": stage_run.stage,
        "round": stage_run.round,
        "try": stage_run.attempt,
        "role": stage.role,
    }


def _texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {to_text(name): to_text(value) for name, value in fields.items()}

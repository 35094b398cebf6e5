"""
A run in Redis: every transition one script, one round trip.

The keys are explained at the head of `scripts/workflow.lua`. What a run says (its definition,
input, answers and error) is sealed where there are encryption keys. Every `RedisError` comes out
as it is.
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
from breakwater.workflows.definition import Definition, Stage
from breakwater.workflows.progress import StageHistory, StageRecord, StageRun

INDEX = "workflows"
RUN = "run"
"""How a move names the run itself."""
FINISHED_STATES = ("succeeded", "failed", "cancelled")
TURN, LOGGED = "turn:", "told:"
PAGE = 100


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition that is wanted of a run, or of the turn of this key."""

    what: str
    from_: str
    to: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as the script takes it."""
        return {"what": self.what, "from": self.from_, "to": self.to, "facts": dict(self.facts)}


@dataclass(frozen=True)
class RunSnapshot:
    """What was in Redis of a run at one moment, without what it says."""

    run: str
    fields: Mapping[str, str]

    @property
    def state(self) -> str:
        """Of the run."""
        return self.fields["state"]

    @property
    def name(self) -> str:
        """Of the workflow."""
        return self.fields["name"]

    @cached_property
    def stage_runs(self) -> dict[str, dict[str, Any]]:
        """By key: those that have begun in their order, then the others as they were prepared."""
        found = {
            name.removeprefix(TURN): cast("dict[str, Any]", json.loads(told))
            for name, told in self.fields.items()
            if name.startswith(TURN)
        }
        return dict(sorted(found.items(), key=lambda item: item[1].get("number", float("inf"))))

    @property
    def history(self) -> StageHistory:
        """The turns, as the course is found by."""
        return StageHistory(
            StageRecord(
                StageRun(facts["stage"], facts["round"], facts["try"]), facts["state"], facts
            )
            for facts in self.stage_runs.values()
        )

    @property
    def unlogged(self) -> list[str]:
        """The turns that have ended, and whose end is not in the log yet."""
        return [
            key
            for key, facts in self.stage_runs.items()
            if facts["state"] in FINISHED_STATES and LOGGED + key not in self.fields
        ]

    def running(self) -> dict[str, dict[str, Any]]:
        """Return the turns whose tasks are out."""
        return {key: facts for key, facts in self.stage_runs.items() if facts["state"] == "running"}


@cache
def packaged() -> tuple[str, str]:
    """Read the scripts, start and move, each whole: what they share stands in front."""
    folder = files("breakwater.workflows") / "scripts"
    shared, start, move = (
        (folder / f"{name}.lua").read_text() for name in ("workflow", "start", "move")
    )
    return shared + start, shared + move


class RunStore:
    """
    Runs in Redis.

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
        given: str,
        stage_runs: Iterable[tuple[Stage, StageRun]],
        who: str,
    ) -> bool:
        """Begin a run; tell whether there was none of this id."""
        prepared = [
            word
            for stage, stage_run in stage_runs
            for word in (
                stage_run.key,
                json.dumps({**initial_facts(stage, stage_run), "state": "pending"}),
            )
        ]
        told = self._start(
            keys=keys_of(run),
            args=[
                named(id=run, name=definition.name, who=who, turns=prepared),
                seal(json.dumps(definition.as_dict())),
                seal(given),
            ],
        )
        return bool(told)

    def move(
        self, run: str, moves: Sequence[Transition], who: str, says: Mapping[str, Any] | None = None
    ) -> str:
        """
        Transition a run, turns of it, or both: all of it, or nothing.

        Args:
            says: What is kept with it, by field of `workflow:ID:answers`; JSON.

        Returns:
            Empty; or why it is refused, and nothing has changed.
        """
        words = [
            word for name, value in (says or {}).items() for word in (name, seal(json.dumps(value)))
        ]
        wanted = json.dumps([move.as_dict() for move in moves])
        return to_text(self._move(keys=keys_of(run), args=[who, wanted, *words]))

    def snapshot(self, run: str) -> RunSnapshot:
        """
        Read a run.

        Raises:
            UnknownRun: There is none of this id, or it was too long ago.
        """
        fields: dict[Any, Any] = {}
        if NAME.fullmatch(run):  # else it may be the name of another key
            fields = cast("dict[Any, Any]", self.client.hgetall(keys_of(run)[0]))
        if not fields:
            raise UnknownRun(
                f"no run {run[:80]!r}; `breakwater workflows` lists those of the last 60 days"
            )
        return RunSnapshot(run, {to_text(name): to_text(value) for name, value in fields.items()})

    def definition(self, run: str) -> Definition:
        """Read what a run goes by."""
        return Definition.from_dict(self.read(run, "definition"))

    def input(self, run: str) -> str:
        """Read what a run was given."""
        return opened(to_text(self.client.hget(keys_of(run)[1], "input")))

    def read(self, run: str, name: str) -> Any:
        """Read one of the things a run has said; None if it has not."""
        told = self.client.hget(keys_of(run)[1], name)
        return None if told is None else json.loads(opened(to_text(told)))

    def answers(self, run: str, keys: Mapping[str, str]) -> dict[str, Any]:
        """Read the answers of turns; the keys by name."""
        if not keys:
            return {}
        told = cast("list[Any]", self.client.hmget(keys_of(run)[1], list(keys.values())))
        return {
            name: json.loads(opened(to_text(each)))
            for name, each in zip(keys, told, strict=True)
            if each is not None
        }

    def mark_sent(self, run: str, task_id: str) -> None:
        """Note that a stage's task is in its queue."""
        self.client.hset(keys_of(run)[0], "sent", task_id)

    def claim_log_line(self, run: str, key: str) -> bool:
        """Tell whether a turn's end is the caller's to log: of all who ask, the first one's."""
        return bool(self.client.hsetnx(keys_of(run)[0], LOGGED + key, 1))

    def events(self, run: str) -> list[dict[str, Any]]:
        """Read the transitions of a run, the oldest first."""
        told = cast("list[Any]", self.client.xrange(keys_of(run)[2]))
        found = [{to_text(k): to_text(v) for k, v in fields.items()} for _, fields in told]
        return [{**each, "at_ms": int(each["at_ms"])} for each in found]

    def wait_for_change(self, run: str, since: str, within_ms: int) -> str:
        """Wait for a transition after this entry, so long; return the newest entry."""
        told: Any = self.client.xread({keys_of(run)[2]: since}, block=within_ms)
        return to_text(told[0][1][-1][0]) if told else since

    def runs(self, count: int) -> list[RunSnapshot]:
        """Return the newest runs."""
        found: list[RunSnapshot] = []
        first = 0
        while len(found) < count:
            page = cast("list[Any]", self.client.zrange(INDEX, first, first + PAGE - 1, desc=True))
            for run in map(to_text, page):
                fields = cast("dict[Any, Any]", self.client.hgetall(keys_of(run)[0]))
                if fields:  # else its time is over
                    found.append(
                        RunSnapshot(run, {to_text(k): to_text(v) for k, v in fields.items()})
                    )
            if len(page) < PAGE:
                break
            first += PAGE
        return found[:count]


def keys_of(run: str) -> list[str]:
    """Return the names of a run's keys."""
    return [f"workflow:{run}", f"workflow:{run}:answers", f"workflow:{run}:events"]


def initial_facts(stage: Stage, stage_run: StageRun) -> dict[str, Any]:
    """Return what a turn is from its beginning."""
    return {
        "stage": stage_run.stage,
        "round": stage_run.round,
        "try": stage_run.attempt,
        "role": stage.role,
    }

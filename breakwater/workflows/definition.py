"""
What a workflow is: stages one after the other, some of them in loops; checked whole.

The same check reads code and the roles file, from plain data, so that both know the same faults. A
fault is told with its path, such as `(2, "loop", "stages", 1, "prompt")`.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from breakwater.calls.call import CompletionCall
from breakwater.calls.options import OPTIONS, to_wire
from breakwater.calls.schema import as_json_object
from breakwater.errors import BadTask, InvalidOption, InvalidWorkflow, nearest
from breakwater.workflows.template import INPUT, BadTemplate, Reference, parse

STAGE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
MAX_ROUNDS = 100
MAX_STAGES = 100
MAX_PROMPT = 1024 * 1024
"""Characters of a stage's prompt as it is written."""
MAX_UNKNOWN = 10
"""Unknown names in one prompt that are reported."""
LONGEST_S = 30 * 86400.0
"""A run is kept longer than its stages may take."""
STAGE_OPTIONS = tuple(name for name in OPTIONS if name != "stream")
STAGE_KEYS = ("name", "role", "prompt", *STAGE_OPTIONS)
LOOP_KEYS = ("stages", "until", "at_most", "or_fail")
UNTIL_KEYS = ("stage", "contains", "equals")

Path = tuple[str | int, ...]
Fault = tuple[Path, str]


@dataclass(frozen=True, slots=True)
class Stage:
    """
    One completion.

    `prompt` is a template (see `template.py`); `options` are those of `complete`, such as `system`,
    `params`, `schema`, `tools`, `metadata` and `deadline_s`.
    """

    name: str
    role: str
    prompt: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __init__(self, name: str, role: str, prompt: str, **options: Any) -> None:
        for key, value in (("name", name), ("role", role), ("prompt", prompt)):
            object.__setattr__(self, key, value)
        with suppress(InvalidOption):  # told with all other faults, by `Definition.of`
            options = to_wire(options)
        object.__setattr__(self, "options", options)

    def as_dict(self) -> dict[str, Any]:
        """Return the stage as the roles file writes it."""
        return {"name": self.name, "role": self.role, "prompt": self.prompt, **self.options}


@dataclass(frozen=True, slots=True)
class Until:
    """What ends a loop: a stage's text that contains something, or its data that equals it."""

    stage: str
    contains: str | None = field(default=None, repr=False)
    equals: Mapping[str, Any] | None = field(default=None, repr=False)
    """By path, such as `{"verdict.ok": True}`; all must fit."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as the roles file writes it."""
        told = {"stage": self.stage, "contains": self.contains, "equals": self.equals}
        return {key: value for key, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Loop:
    """Stages that are repeated until something is so, at most so many times."""

    stages: Sequence[Stage]
    until: Until
    at_most: int
    or_fail: bool = False
    """Whether the run fails, instead of going on, when it never was so."""

    def as_dict(self) -> dict[str, Any]:
        """Return the loop as the roles file writes it."""
        stages = [_as_dict(stage) for stage in self.stages]
        told = {"stages": stages, "until": _as_dict(self.until), "at_most": self.at_most}
        return {"loop": {**told, "or_fail": self.or_fail}}


@dataclass(frozen=True, slots=True)
class Definition:
    """A checked workflow; `name` is empty for one that was written in code without a name."""

    name: str
    stages: tuple[Stage | Loop, ...]

    @classmethod
    def of(
        cls, name: str, stages: Sequence[Stage | Loop], roles: Collection[str] | None
    ) -> "Definition":
        """
        Check stages that were written in code.

        Args:
            roles: Those that there are; None where they are not known.

        Raises:
            InvalidWorkflow: Listing every fault; `details["faults"]` has them one by one.
        """
        definition, faults = read(name, [_as_dict(each) for each in stages], roles)
        if definition is None:
            told = [f"{shown(path)}: {what}" if path else what for path, what in faults]
            raise InvalidWorkflow("\n  ".join([f"{_count(told)}:", *told]), {"faults": told})
        return definition

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON, for `from_dict`."""
        return {"name": self.name, "stages": [each.as_dict() for each in self.stages]}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> "Definition":
        """Read what `as_dict` wrote: it was checked before."""
        return cls(told["name"], tuple(_node(each) for each in told["stages"]))

    def each(self) -> Iterator[Stage]:
        """Walk all stages, those of loops too, as they stand."""
        for node in self.stages:
            yield from node.stages if isinstance(node, Loop) else (node,)


def read(
    name: str, nodes: object, roles: Collection[str] | None
) -> tuple[Definition | None, list[Fault]]:
    """
    Check plain data, as the roles file has it.

    Returns:
        The definition, None if there are faults; and the faults, each with its path.
    """
    check = _Check(roles)
    check.nodes(nodes)
    if check.faults:
        return None, check.faults
    return Definition.from_dict({"name": name, "stages": nodes}), []


def shown(path: Path) -> str:
    """Write a path as the messages do, such as `[3].loop.stages[1].prompt`."""
    told = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in path)
    return told.removeprefix(".")


class _Check:
    """One pass over the data; what does not fit is told to `faults`, and reading goes on."""

    def __init__(self, roles: Collection[str] | None) -> None:
        self.faults: list[Fault] = []
        self._roles = roles
        self._before: list[str] = []
        """The stages passed already."""

    def nodes(self, nodes: object) -> None:
        if not isinstance(nodes, list) or not nodes:
            self._fault((), "a workflow is a list of stages and loops; there must be at least one")
            return
        everywhere = _names(nodes)
        if len(everywhere) > MAX_STAGES:
            self._fault((), f"{len(everywhere)} stages; a workflow has at most {MAX_STAGES}")
            return
        for at, node in enumerate(nodes):
            if isinstance(node, Mapping) and "loop" in node:
                self._loop((at, "loop"), node, everywhere)
            else:
                self._stage((at,), node, (), everywhere)

    def _loop(self, path: Path, node: Mapping[str, Any], everywhere: list[str]) -> None:
        if len(node) > 1:
            self._fault(path[:1], "a loop stands alone; its keys belong under 'loop'")
        loop = node["loop"]
        if not self._mapping(path, loop, LOOP_KEYS, ("stages", "until", "at_most")):
            return
        stages, at_most = loop.get("stages"), loop.get("at_most", 1)
        inside = _names(stages)
        if not isinstance(stages, list) or not stages:
            self._fault((*path, "stages"), "is not a list of at least one stage")
            stages = []
        for at, stage in enumerate(stages):
            self._stage((*path, "stages", at), stage, inside, everywhere)
        if type(at_most) is not int or not 1 <= at_most <= MAX_ROUNDS:
            self._fault((*path, "at_most"), f"is not a whole number from 1 to {MAX_ROUNDS}")
        if type(loop.get("or_fail", False)) is not bool:
            self._fault((*path, "or_fail"), "is not true or false")
        if "until" in loop:
            self._until((*path, "until"), loop["until"], inside)

    def _until(self, path: Path, until: object, inside: Collection[str]) -> None:
        if not self._mapping(path, until, UNTIL_KEYS, ("stage",)):
            return
        assert isinstance(until, Mapping)  # noqa: S101 - as `_mapping` has found
        stage, contains, equals = (until.get(key) for key in UNTIL_KEYS)
        if "stage" in until and stage not in inside:
            hint = nearest(str(stage)[:60], inside)
            there = f"the loop has {', '.join(inside) or 'none'}{hint}"
            self._fault((*path, "stage"), f"unknown stage {str(stage)[:60]!r}; {there}")
        if (contains is None) == (equals is None):
            self._fault(path, "needs either contains or equals")
        if contains is not None and not (isinstance(contains, str) and contains):
            self._fault((*path, "contains"), "is not a text")
        if equals is not None and not (isinstance(equals, Mapping) and equals):
            self._fault((*path, "equals"), "is not a mapping of paths, such as verdict.ok: true")
        elif equals is not None:
            try:
                as_json_object(equals)
            except ValueError as fault:
                self._fault((*path, "equals"), str(fault))

    def _stage(
        self, path: Path, stage: object, inside: Collection[str], everywhere: list[str]
    ) -> None:
        if isinstance(stage, Mapping) and "loop" in stage:
            self._fault(path, "a loop inside of a loop; there is one level alone")
            return
        if not self._mapping(path, stage, STAGE_KEYS, ("name", "role", "prompt")):
            return
        assert isinstance(stage, Mapping)  # noqa: S101 - as `_mapping` has found
        self._name(path, stage, everywhere)
        self._call(path, stage)
        self._prompt((*path, "prompt"), stage.get("prompt"), inside, everywhere)
        self._before.append(str(stage.get("name")))

    def _name(self, path: Path, stage: Mapping[str, Any], everywhere: list[str]) -> None:
        if "name" not in stage:
            return
        name = stage["name"]
        if not isinstance(name, str) or not STAGE_NAME.fullmatch(name) or name == INPUT:
            allowed = f"{STAGE_NAME.pattern}, and not {INPUT!r}"
            self._fault(
                (*path, "name"), f"{str(name)[:60]!r} cannot name a stage; allowed is {allowed}"
            )
        elif name in self._before:
            self._fault((*path, "name"), f"{name!r} names an earlier stage, too")

    def _call(self, path: Path, stage: Mapping[str, Any]) -> None:
        """Check role and options as `complete` would."""
        role = stage.get("role", "any")
        if self._roles is not None and "role" in stage and role not in self._roles:
            told = str(role)[:60]
            there = f"there are {', '.join(sorted(self._roles))}{nearest(told, self._roles)}"
            self._fault((*path, "role"), f"unknown role {told!r}; {there}")
            role = "any"
        options = {key: stage[key] for key in STAGE_OPTIONS if key in stage}
        try:
            CompletionCall.of(role, "any", options)
        except InvalidOption as fault:
            for what in fault.details.get("faults", [str(fault)]):
                self._fault(path, what)
        except BadTask as fault:
            self._fault((*path, "role"), str(fault))
        deadline_s = options.get("deadline_s")
        if isinstance(deadline_s, int | float) and deadline_s > LONGEST_S:
            self._fault((*path, "deadline_s"), "is more than 30 days")

    def _prompt(
        self, path: Path, prompt: object, inside: Collection[str], everywhere: Collection[str]
    ) -> None:
        if prompt is None:
            return
        if not isinstance(prompt, str) or not prompt.strip():
            self._fault(path, "is not a text")
            return
        if len(prompt) > MAX_PROMPT:
            self._fault(path, f"has {len(prompt)} characters; at most {MAX_PROMPT} are allowed")
            return
        try:
            pieces = parse(prompt)
        except BadTemplate as fault:
            self._fault(path, str(fault))
            return
        known = {INPUT, *self._before, *inside}
        names = dict.fromkeys(piece.name for piece in pieces if isinstance(piece, Reference))
        for name in islice((name for name in names if name not in known), MAX_UNKNOWN):
            why = "comes later" if name in everywhere else "is no stage"
            hint = nearest(name[:60], known) if name not in everywhere else ""
            there = f"here are known {', '.join(sorted(known))}{hint}"
            self._fault(path, f"{name[:60]!r} {why}; {there}")

    def _mapping(
        self, path: Path, value: object, known: Sequence[str], needed: Sequence[str]
    ) -> bool:
        if not isinstance(value, Mapping):
            self._fault(path, f"is not a mapping with the keys {', '.join(known)}")
            return False
        for key in value:
            if key not in known:
                hint = nearest(str(key)[:60], known)
                what = f"unknown key {str(key)[:60]!r}; allowed are {', '.join(known)}{hint}"
                self._fault((*path, str(key)), what)
        for key in needed:
            if key not in value:
                self._fault(path, f"{key} is missing")
        return True

    def _fault(self, path: Path, what: str) -> None:
        self.faults.append((path, what))


def _names(nodes: object) -> list[str]:
    """Return the names of all stages, as far as they can be read."""
    found: list[str] = []
    for node in nodes if isinstance(nodes, list) else []:
        if not isinstance(node, Mapping):
            continue
        if isinstance(loop := node.get("loop"), Mapping):
            found += _names(loop.get("stages"))
        elif isinstance(name := node.get("name"), str):
            found.append(name)
    return found


def _as_dict(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Stage | Loop | Until) else value


def _node(told: Mapping[str, Any]) -> Stage | Loop:
    if "loop" not in told:
        return Stage(**told)
    loop = told["loop"]
    stages = tuple(Stage(**stage) for stage in loop["stages"])
    return Loop(stages, Until(**loop["until"]), loop["at_most"], loop.get("or_fail", False))


def _count(faults: Sequence[str]) -> str:
    return (
        "the workflow has 1 fault" if len(faults) == 1 else f"the workflow has {len(faults)} faults"
    )

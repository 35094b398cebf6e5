"""
The definition of a workflow: stages in order, some of them in loops; and its check.

One check reads both code and the roles file, as plain data, so that both report the same faults. It
reports every fault, each with its path, such as `(2, "loop", "stages", 1, "prompt")`.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from breakwater.calls.call import CompletionCall
from breakwater.calls.options import OPTIONS, to_wire
from breakwater.calls.schema import as_json_object
from breakwater.content import JsonObject
from breakwater.errors import BadTask, InvalidOption, InvalidWorkflow, nearest
from breakwater.workflows.template import INPUT, BadTemplate, Reference, parse

STAGE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
MAX_ROUNDS = 100
MAX_STAGES = 100
MAX_PROMPT = 1024 * 1024
"""Limit for the characters of a stage's prompt, before it is filled in."""
MAX_UNKNOWN = 10
"""The most unknown names of one prompt that are reported."""
MAX_DEADLINE_S = 30 * 86400.0
"""Runs are kept longer than a stage may take."""
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
    options: Mapping[str, object] = field(default_factory=dict, repr=False)

    def __init__(self, name: str, role: str, prompt: str, **options: object) -> None:
        for key, value in (("name", name), ("role", role), ("prompt", prompt)):
            object.__setattr__(self, key, value)
        with suppress(InvalidOption):  # `Definition.of` reports it with all other faults
            options = to_wire(options)
        object.__setattr__(self, "options", options)

    def as_dict(self) -> dict[str, object]:
        """Return the stage in the form of the roles file."""
        return {"name": self.name, "role": self.role, "prompt": self.prompt, **self.options}


@dataclass(frozen=True, slots=True)
class Until:
    """The condition that ends a loop: on the text of a stage, or on its data."""

    stage: str
    contains: str | None = field(default=None, repr=False)
    equals: Mapping[str, object] | None = field(default=None, repr=False)
    """Expected values by path, such as `{"verdict.ok": True}`; all must match."""

    def as_dict(self) -> dict[str, object]:
        """Return the condition in the form of the roles file."""
        fields = {"stage": self.stage, "contains": self.contains, "equals": self.equals}
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Loop:
    """Stages that are repeated until a condition holds, at most `at_most` times."""

    stages: Sequence[Stage]
    until: Until
    at_most: int
    or_fail: bool = False
    """Whether the run fails, instead of continuing, if the condition never holds."""

    def as_dict(self) -> dict[str, object]:
        """Return the loop in the form of the roles file."""
        return {
            "loop": {
                "stages": [_as_dict(stage) for stage in self.stages],
                "until": _as_dict(self.until),
                "at_most": self.at_most,
                "or_fail": self.or_fail,
            }
        }


@dataclass(frozen=True, slots=True)
class Definition:
    """A checked workflow; `name` is empty if code defines it without a name."""

    name: str
    stages: tuple[Stage | Loop, ...]

    @classmethod
    def of(
        cls, name: str, stages: Sequence[Stage | Loop], roles: Collection[str] | None
    ) -> "Definition":
        """
        Check stages that are defined in code.

        Args:
            roles: All existing roles; None if they are unknown.

        Raises:
            InvalidWorkflow: The message and `details["faults"]` list every fault.
        """
        definition, faults = read(name, [_as_dict(each) for each in stages], roles)
        if definition is None:
            lines = [f"{shown(path)}: {message}".removeprefix(": ") for path, message in faults]
            raise InvalidWorkflow("\n  ".join([f"{_count(lines)}:", *lines]), {"faults": lines})
        return definition

    def as_dict(self) -> dict[str, object]:
        """Return the definition as JSON, for `from_dict`."""
        return {"name": self.name, "stages": [each.as_dict() for each in self.stages]}

    @classmethod
    def from_dict(cls, value: JsonObject) -> "Definition":
        """Read what `as_dict` wrote; it is already checked."""
        return cls(value["name"], tuple(_node(each) for each in value["stages"]))

    def each(self) -> Iterator[Stage]:
        """Yield all stages in order, including those of loops."""
        for node in self.stages:
            if isinstance(node, Loop):
                yield from node.stages
            else:
                yield node


def read(
    name: str, nodes: object, roles: Collection[str] | None
) -> tuple[Definition | None, list[Fault]]:
    """
    Check a workflow as plain data, in the form of the roles file.

    Returns:
        The definition, or None if there are faults; and the faults, each with its path.
    """
    check = _Check(roles)
    check.nodes(nodes)
    if check.faults:
        return None, check.faults
    return Definition.from_dict({"name": name, "stages": nodes}), []


def shown(path: Path) -> str:
    """Return a path in the form of messages, such as `[3].loop.stages[1].prompt`."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


class _Check:
    """One pass over the data; it appends each fault to `faults`, and continues."""

    def __init__(self, roles: Collection[str] | None) -> None:
        self.faults: list[Fault] = []
        self._roles = roles
        self._before: list[str] = []
        """The names of the stages before the current one."""

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

    def _loop(self, path: Path, node: Mapping[str, object], everywhere: list[str]) -> None:
        if len(node) > 1:
            self._fault(path[:1], "a loop stands alone; its keys belong under 'loop'")
        loop = self._mapping(path, node["loop"], LOOP_KEYS, ("stages", "until", "at_most"))
        if loop is None:
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

    def _until(self, path: Path, value: object, inside: Collection[str]) -> None:
        until = self._mapping(path, value, UNTIL_KEYS, ("stage",))
        if until is None:
            return
        stage, contains, equals = (until.get(key) for key in UNTIL_KEYS)
        if "stage" in until and stage not in inside:
            hint = nearest(str(stage)[:60], inside)
            known = f"the loop has {', '.join(inside) or 'none'}{hint}"
            self._fault((*path, "stage"), f"unknown stage {str(stage)[:60]!r}; {known}")
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
            self._fault(path, "a loop inside a loop; only one level is allowed")
            return
        fields = self._mapping(path, stage, STAGE_KEYS, ("name", "role", "prompt"))
        if fields is None:
            return
        self._name(path, fields)
        self._call(path, fields)
        self._prompt((*path, "prompt"), fields.get("prompt"), inside, everywhere)
        self._before.append(str(fields.get("name")))

    def _name(self, path: Path, stage: Mapping[str, object]) -> None:
        if "name" not in stage:
            return
        name = stage["name"]
        if not isinstance(name, str) or not STAGE_NAME.fullmatch(name) or name == INPUT:
            allowed = f"{STAGE_NAME.pattern}, and not {INPUT!r}"
            self._fault(
                (*path, "name"), f"{str(name)[:60]!r} cannot name a stage; allowed is {allowed}"
            )
        elif name in self._before:
            self._fault((*path, "name"), f"{name!r} is already the name of an earlier stage")

    def _call(self, path: Path, stage: Mapping[str, object]) -> None:
        """Check role and options as `complete` does."""
        role = stage.get("role", "any")
        if self._roles is not None and "role" in stage and role not in self._roles:
            name = str(role)[:60]
            known = f"there are {', '.join(sorted(self._roles))}{nearest(name, self._roles)}"
            self._fault((*path, "role"), f"unknown role {name!r}; {known}")
            role = "any"
        options = {key: stage[key] for key in STAGE_OPTIONS if key in stage}
        try:
            CompletionCall.of(role, "any", options)
        except InvalidOption as fault:
            for message in fault.details.get("faults", [str(fault)]):
                self._fault(path, message)
        except BadTask as fault:
            self._fault((*path, "role"), str(fault))
        deadline_s = options.get("deadline_s")
        if isinstance(deadline_s, int | float) and deadline_s > MAX_DEADLINE_S:
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
            why, hint = "is not a stage", nearest(name[:60], known)
            if name in everywhere:
                why, hint = "comes later", ""
            listed = f"known here are {', '.join(sorted(known))}{hint}"
            self._fault(path, f"{name[:60]!r} {why}; {listed}")

    def _mapping(
        self, path: Path, value: object, known: Sequence[str], needed: Sequence[str]
    ) -> Mapping[str, object] | None:
        """
        Return a mapping, and report its unknown and missing keys; None if it is not a mapping.
        """
        if not isinstance(value, Mapping):
            self._fault(path, f"is not a mapping with the keys {', '.join(known)}")
            return None
        for key in value:
            if key not in known:
                hint = nearest(str(key)[:60], known)
                message = f"unknown key {str(key)[:60]!r}; allowed are {', '.join(known)}{hint}"
                self._fault((*path, str(key)), message)
        for key in needed:
            if key not in value:
                self._fault(path, f"{key} is missing")
        return value

    def _fault(self, path: Path, message: str) -> None:
        self.faults.append((path, message))


def _names(nodes: object) -> list[str]:
    """Return the names of all stages, as far as they can be read."""
    names: list[str] = []
    if not isinstance(nodes, list):
        return names
    for node in nodes:
        if not isinstance(node, Mapping):
            continue
        if isinstance(loop := node.get("loop"), Mapping):
            names += _names(loop.get("stages"))
        elif isinstance(name := node.get("name"), str):
            names.append(name)
    return names


def _as_dict(value: object) -> object:
    if isinstance(value, Stage | Loop | Until):
        return value.as_dict()
    return value


def _node(value: JsonObject) -> Stage | Loop:
    if "loop" not in value:
        return Stage(**value)
    loop = value["loop"]
    stages = tuple(Stage(**stage) for stage in loop["stages"])
    return Loop(stages, Until(**loop["until"]), loop["at_most"], loop.get("or_fail", False))


def _count(faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return "the workflow has 1 fault"
    return f"the workflow has {len(faults)} faults"

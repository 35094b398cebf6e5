"""
`workflows` of the roles file: from YAML to definitions, every fault with its line.

The worker checks it with the whole file; a producer, who has no keys, reads this section alone.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from breakwater.calls.value_types import NAME
from breakwater.config import LAST_GOOD, known_path, role_names
from breakwater.config.document import BROKEN, Faults, Node, parse, read_bytes
from breakwater.workflows.definition import Definition, read, shown

SECTION = "workflows"


class _ItsFaults(Faults):
    """The faults of this section: that a provider's variable is not set here is another's."""

    def add(self, line: int, where: str, what: str) -> None:
        if where == SECTION or where.startswith(f"{SECTION}."):
            super().add(line, where, what)


def load(environ: Mapping[str, str] = os.environ) -> Mapping[str, Definition]:
    """
    Read the workflows of the roles file; there are none without a file.

    What was read last counts for as long as the file cannot be read.

    Raises:
        ConfigError: Listing every fault of this section, by line.
    """
    path = known_path(environ)
    if path is None:
        return {}
    known = dict(environ)
    part = SECTION, hash(frozenset(known.items()))
    return LAST_GOOD.read(path, part, lambda: _load(path, known)) or {}


def _load(path: Path, environ: Mapping[str, str]) -> Mapping[str, Definition]:
    faults = _ItsFaults(path)
    top = parse(read_bytes(path), path, environ, faults).value
    node = top.get(SECTION) if isinstance(top, dict) else None
    found = definitions(node, role_names(environ), faults) if node else {}
    faults.raise_if_any()
    return found


def definitions(node: Node, roles: Collection[str] | None, faults: Faults) -> dict[str, Definition]:
    """Return the workflows that have no fault, by name; the others are told to `faults`."""
    if node.value is BROKEN:
        return {}
    if not isinstance(node.value, dict):
        faults.add(node.line, SECTION, f"{node.shown} is not a mapping of names to lists of stages")
        return {}
    found = {}
    for name, child in node.value.items():
        if not NAME.fullmatch(name):
            what = f"{name[:64]!r} cannot be a name; allowed is {NAME.pattern}"
            faults.add(child.line, SECTION, what)
        if _is_broken(child):
            continue
        definition, told = read(name, _plain(child), roles)
        for path, what in told:
            within = shown(path)
            where = f"{SECTION}.{name}{'' if within.startswith('[') or not within else '.'}{within}"
            faults.add(_line(child, path), where, what)
        if definition:
            found[name] = definition
    return found


def _plain(node: Node) -> Any:
    """Return what a node says, all the way down; what came from a variable is text where it was."""
    if isinstance(node.value, dict):
        return {key: _plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    return node.value


def _is_broken(node: Node) -> bool:
    if isinstance(node.value, dict | list):
        inside = node.value.values() if isinstance(node.value, dict) else node.value
        return any(map(_is_broken, inside))
    return node.value is BROKEN


def _line(node: Node, path: tuple[str | int, ...]) -> int:
    """Return the line of what a path leads to, or of the nearest there is on its way."""
    for part in path:
        child = node.child(part)
        if child is None:
            break
        node = child
    return node.line

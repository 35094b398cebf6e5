"""
Read the section `workflows` of the roles file; report every fault with its line.

The worker checks this section with the whole file. A producer has no API keys, so it reads only
this section.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from breakwater.calls.value_types import NAME
from breakwater.config import LAST_GOOD, known_path, role_names
from breakwater.config.document import BROKEN, Faults, Node, parse, read_bytes
from breakwater.workflows.definition import Definition, read, shown

SECTION = "workflows"


class _SectionFaults(Faults):
    """The faults of this section; it ignores others, such as unset variables of providers."""

    def add(self, line: int, where: str, message: str) -> None:
        if where == SECTION or where.startswith(f"{SECTION}."):
            super().add(line, where, message)


def load(environ: Mapping[str, str] = os.environ) -> Mapping[str, Definition]:
    """
    Read the workflows of the roles file; without a file, there are none.

    While the file cannot be read, the workflows that were read last stay valid.

    Raises:
        ConfigError: The section has faults; the message lists every fault by its line.
    """
    path = known_path(environ)
    if path is None:
        return {}
    variables = dict(environ)
    part = SECTION, hash(frozenset(variables.items()))
    return LAST_GOOD.read(path, part, lambda: _load(path, variables)) or {}


def _load(path: Path, environ: Mapping[str, str]) -> Mapping[str, Definition]:
    faults = _SectionFaults(path)
    top = parse(read_bytes(path), path, environ, faults).value
    node, workflows = None, {}
    if isinstance(top, dict):
        node = top.get(SECTION)
    if node:
        workflows = definitions(node, role_names(environ), faults)
    faults.raise_if_any()
    return workflows


def definitions(node: Node, roles: Collection[str] | None, faults: Faults) -> dict[str, Definition]:
    """Return the workflows without a fault, by name; add the faults of the others to `faults`."""
    if node.value is BROKEN:
        return {}
    if not isinstance(node.value, dict):
        faults.add(node.line, SECTION, f"{node.shown} is not a mapping of names to lists of stages")
        return {}
    workflows = {}
    for name, child in node.value.items():
        if not NAME.fullmatch(name):
            message = f"{name[:64]!r} cannot be a name; allowed is {NAME.pattern}"
            faults.add(child.line, SECTION, message)
        if _is_broken(child):
            continue
        definition, its_faults = read(name, _plain(child), roles)
        for path, message in its_faults:
            place = shown(path)
            if place and not place.startswith("["):
                place = f".{place}"
            faults.add(_line(child, path), f"{SECTION}.{name}{place}", message)
        if definition:
            workflows[name] = definition
    return workflows


def _plain(node: Node) -> object:
    """Return a node as plain data, with everything inside it."""
    if isinstance(node.value, dict):
        return {key: _plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    return node.value


def _is_broken(node: Node) -> bool:
    if isinstance(node.value, dict):
        return any(map(_is_broken, node.value.values()))
    if isinstance(node.value, list):
        return any(map(_is_broken, node.value))
    return node.value is BROKEN


def _line(node: Node, path: tuple[str | int, ...]) -> int:
    """Return the line of the node at a path, or of its nearest existing ancestor."""
    for part in path:
        child = node.child(part)
        if child is None:
            break
        node = child
    return node.line

"""
The ways in which every part of a file is read: by tables of keys and value types.

What does not fit is told to the faults and left out, so that reading can go on.
"""

from collections.abc import Collection, Mapping
from typing import Any

from breakwater.calls.value_types import ValueType, text, unknown_key
from breakwater.config.document import BROKEN, Faults, Node
from breakwater.errors import nearest

TEXT = text("a text", lambda _: True)


class NodeReader:
    """Reads nodes, and tells the faults; `where` is the path of keys to a node."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def section(
        self,
        entries: Mapping[str, Node],
        where: str,
        key: str,
        types: Mapping[str, ValueType],
    ) -> dict[str, Any]:
        """Return the values of a mapping inside of a mapping."""
        if key not in entries:
            return {}
        where = at(where, key)
        return self.values(self.mapping(entries[key], where, types), where, types)

    def mapping(self, node: Node, where: str, known: Collection[str]) -> dict[str, Node]:
        """Return the known entries of a mapping; keys that begin with x- may hold anchors."""
        if node.value is BROKEN:
            return {}
        if not isinstance(node.value, dict):
            allowed = f"a mapping with the keys {', '.join(known)}"
            self.faults.add(node.line, where, f"{node.shown} is not {allowed}")
            return {}
        for key, child in node.value.items():
            if key not in known and (where or not key.startswith("x-")):
                self.faults.add(child.line, where, unknown_key(key, known))
        return {key: child for key, child in node.value.items() if key in known}

    def values(
        self, entries: Mapping[str, Node], where: str, types: Mapping[str, ValueType]
    ) -> dict[str, Any]:
        """Return the values that are of their kind; the others are faults."""
        good = {}
        for key, node in entries.items():
            kind = types.get(key)
            if kind is None:
                continue
            value = node.text if kind.textual and node.text is not None else node.plain
            if value is BROKEN:
                continue
            if kind.accepts(value):
                good[key] = kind.convert(value)
            else:
                shown = "the value" if kind.secret else node.shown
                what = f"{shown} is not {kind.allowed}{nearest_to(node, kind.choices)}"
                self.faults.add(node.line, at(where, key), what)
        return good

    def known_name(
        self, what: str, entries: Mapping[str, Node], where: str, key: str, known: Collection[str]
    ) -> str | None:
        """Return the name of a provider or a role that exists; None if not given, or a fault."""
        name: str | None = self.values(entries, where, {key: TEXT}).get(key)
        if name is None or name in known:
            return name
        node = entries[key]
        there_are = f"there are {', '.join(known)}" if known else "there are none"
        problem = f"unknown {what} {node.shown}; {there_are}{nearest_to(node, known)}"
        self.faults.add(node.line, at(where, key), problem)
        return None


def at(where: str, key: str) -> str:
    """Return the path of a key below another."""
    return f"{where}.{key}" if where else key


def nearest_to(node: Node, known: Collection[str]) -> str:
    """Name the nearest known word, unless the word came from a variable."""
    literal = isinstance(node.value, str) and node.text is None
    return nearest(node.value[:60], known) if literal else ""

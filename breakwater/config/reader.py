"""
Read the parts of a file by tables of keys and value types.

A value that breaks its rule becomes a fault and is left out, so that reading goes on.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from breakwater.calls.value_types import ValueType, text, unknown_key
from breakwater.config.document import BROKEN, Faults, Node, at
from breakwater.errors import nearest

TEXT = text("a text", lambda _: True)

Values: TypeAlias = dict[str, Any]
"""Values by key. A table of value types has checked them, and fixes the type of each."""


class NodeReader:
    """
    Reads nodes; `where` is always the path of keys to a node.

    Args:
        faults: Collects what is wrong.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def section(
        self, entries: Mapping[str, Node], where: str, key: str, types: Mapping[str, ValueType]
    ) -> Values:
        """Return the values of the mapping under a key; empty if the key is absent."""
        if key not in entries:
            return {}
        where = at(where, key)
        return self.values(self.mapping(entries[key], where, types), where, types)

    def mapping(self, node: Node, where: str, known: Collection[str]) -> dict[str, Node]:
        """Return the known entries of a mapping; top-level keys may be `x-…`, to hold anchors."""
        if node.value is BROKEN:
            return {}
        if not node.is_mapping:
            allowed = f"a mapping with the keys {', '.join(known)}"
            self.faults.add(node.line, where, f"{node.shown} is not {allowed}")
            return {}
        for key, child in node.entries.items():
            if key not in known and (where or not key.startswith("x-")):
                self.faults.add(child.line, where, unknown_key(key, known))
        return {key: child for key, child in node.entries.items() if key in known}

    def values(
        self, entries: Mapping[str, Node], where: str, types: Mapping[str, ValueType]
    ) -> Values:
        """Return the values that fit their types, converted; the others are faults."""
        values = {}
        for key, node in entries.items():
            wanted = types.get(key)
            if wanted is None:
                continue
            value = node.plain
            if wanted.textual:
                value = node.as_text
            if value is BROKEN:
                continue
            if wanted.accepts(value):
                values[key] = wanted.convert(value)
                continue
            shown = node.shown
            if wanted.secret:
                shown = "the value"
            message = f"{shown} is not {wanted.allowed}{nearest_to(node, wanted.choices)}"
            self.faults.add(node.line, at(where, key), message)
        return values

    def known_name(
        self, kind: str, entries: Mapping[str, Node], where: str, key: str, known: Collection[str]
    ) -> str | None:
        """Return the name of an existing provider or role; None if absent, or after a fault."""
        name: str | None = self.values(entries, where, {key: TEXT}).get(key)
        if name is None or name in known:
            return name
        node = entries[key]
        existing = f"there are {', '.join(known)}"
        if not known:
            existing = "there are none"
        message = f"unknown {kind} {node.shown}; {existing}{nearest_to(node, known)}"
        self.faults.add(node.line, at(where, key), message)
        return None


def nearest_to(node: Node, known: Collection[str]) -> str:
    """Return a hint at the nearest known word; empty if the word came from a variable."""
    if isinstance(node.value, str) and node.text is None:
        return nearest(node.value[:60], known)
    return ""

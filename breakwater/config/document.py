"""
YAML as a tree of nodes that keep their lines, with environment variables expanded.

`${VAR}` must be set, `${VAR:-default}` has a default, `$${` is a literal `${`. An empty variable
counts as not set, and a value that expands to an empty text counts as absent. Messages never show
the value of a variable: a node keeps the text of the file. The syntax is YAML 1.1 as PyYAML reads
it, without custom tags. Anchors and merge keys work; a duplicate key is a fault.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import yaml

from breakwater.errors import ConfigError

MAX_BYTES = 256 * 1024  # PyYAML takes 1.5 s for it; the longest system prompts fit
_MAX_MERGED_KEYS = 10_000  # of `<<`, the only way in which a small file can still grow large
_MAX_SHOWN_CHARS = 60

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$\{)|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\{[^}]*\}?))"
)
_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp")}


class _Broken:
    """The value of a node that already has a fault."""


BROKEN = _Broken()

Value: TypeAlias = "str | int | float | bool | dict[str, Node] | list[Node] | _Broken | None"


@dataclass(frozen=True, slots=True)
class Unset:
    """A variable that is not set, and the fault about it."""

    variable: str
    line: int
    fault: str


@dataclass(frozen=True, slots=True)
class Node:
    """One value and its line."""

    line: int
    value: Value
    """A scalar, `dict[str, Node]`, `list[Node]`, or BROKEN."""
    shown: str
    """The value as a message shows it."""
    text: str | None = None
    """The text after variables were expanded; None if the file names no variable here."""
    unset: frozenset[Unset] = frozenset()
    """The variables in this value that must be set, and are not."""

    @property
    def is_mapping(self) -> bool:
        """Whether the value is a mapping."""
        return isinstance(self.value, dict)

    @property
    def entries(self) -> "dict[str, Node]":
        """The entries of a mapping; empty for any other value."""
        if isinstance(self.value, dict):
            return self.value
        return {}

    def child(self, part: str | int) -> "Node | None":
        """Return the node under a key or at an index from 0; None if there is none."""
        if isinstance(part, str):
            return self.entries.get(part)
        if isinstance(self.value, list) and part < len(self.value):
            return self.value[part]
        return None

    @property
    def plain(self) -> object:
        """The value; for a list, its items as text or values, but not the items of nested lists."""
        if isinstance(self.value, list):
            return [item.value if item.text is None else item.text for item in self.value]
        return self.value

    @property
    def as_text(self) -> object:
        """The expanded text if there are variables in it, even if it reads like a number."""
        if self.text is None:
            return self.plain
        return self.text


class Faults:
    """Collects the faults of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._faults: dict[tuple[int, str], None] = {}  # a set that keeps its order

    def add(self, line: int, where: str, message: str) -> None:
        """Add one fault; `where` is the path of keys, and may be empty."""
        self._faults[line, _fault(where, message)] = None

    def excuse(self, unset: Iterable[Unset]) -> None:
        """Remove the faults about these variables: the provider that needs them is left out."""
        for each in unset:
            self._faults.pop((each.line, each.fault), None)

    def raise_if_any(self) -> None:
        """
        Raise the faults, sorted by line.

        Raises:
            ConfigError: With one line for each fault; `details["faults"]` lists them.
        """
        if not self._faults:
            return
        lines = [f"{self._path}:{line}: {fault}" for line, fault in sorted(self._faults)]
        count = f"{len(lines)} faults"
        if len(lines) == 1:
            count = "1 fault"
        raise ConfigError("\n  ".join([f"{self._path} has {count}:", *lines]), {"faults": lines})


def at(where: str, key: str) -> str:
    """Return the path of a key below the path `where`."""
    return ".".join(filter(None, (where, key)))


def _fault(where: str, message: str) -> str:
    return ": ".join(filter(None, (where, message)))


def read_bytes(path: Path) -> bytes:
    """
    Read a file.

    Raises:
        ConfigError: It cannot be read, or is too large for a roles file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror}; is ROLES_FILE right?"
        raise _unusable(str(path), message) from error
    if len(content) > MAX_BYTES:
        message = f"larger than {MAX_BYTES // 1024} KiB, the most that a roles file may have"
        raise _unusable(str(path), message)
    return content


def parse(content: bytes, path: Path, environ: Mapping[str, str], faults: Faults) -> Node:
    """
    Return the tree; add the faults of its YAML and its variables to `faults`.

    Raises:
        ConfigError: It is not YAML, so that nothing else in it can be checked.
    """
    try:
        loader, root = _compose(content, path)
        return _Reader(loader, environ, faults).node(root, "")
    except RecursionError:
        raise _unusable(f"{path}:1", "nested too deeply") from None


def keys_of(path: Path, key: str) -> frozenset[str] | None:
    """
    Return the keys of the mapping under a key of the file; None if there is no such mapping.

    Raises:
        ConfigError: The file cannot be read, or is not YAML.
    """
    # Without variables, and with its faults dropped: the caller needs names alone.
    section = parse(read_bytes(path), path, {}, Faults(path)).entries.get(key)
    if section is None or not section.is_mapping:
        return None
    return frozenset(section.entries)


def _compose(content: bytes, path: Path) -> tuple[yaml.SafeLoader, yaml.Node]:
    text = ""
    try:
        text = content.decode("utf-8-sig")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unusable(f"{path}:{line}", "not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        # Not str(error): it quotes the line, and that may contain a key.
        line = 1
        if mark := error.problem_mark or error.context_mark:
            line = mark.line + 1
        problem = error.problem or error.context or "not YAML"
        raise _unusable(f"{path}:{line}", problem) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _unusable(f"{path}:{line}", "a character that YAML does not allow") from None
    if root is None:
        raise _unusable(f"{path}:1", "empty; it needs providers and roles")
    return loader, root


def _unusable(location: str, message: str) -> ConfigError:
    """Build the error for a file in which nothing else can be checked."""
    fault = f"{location}: {message}"
    return ConfigError(fault, {"faults": [fault]})


class _Reader:
    """Turn PyYAML's nodes into ours. An aliased node is read once, so aliases cannot multiply."""

    def __init__(self, loader: yaml.SafeLoader, environ: Mapping[str, str], faults: Faults) -> None:
        self._loader = loader
        self._environ = environ
        self._faults = faults
        self._read: dict[int, Node] = {}
        self._open: set[int] = set()
        self._merged_keys = 0

    def node(self, node: yaml.Node, where: str) -> Node:
        known = self._read.get(id(node))
        if known is not None:
            return known
        line = node.start_mark.line + 1
        if id(node) in self._open:
            return self._broken(line, where, "an alias stands inside its own anchor")
        self._open.add(id(node))
        read = self._convert(node, line, where)
        self._read[id(node)] = read
        return read

    def _convert(self, node: yaml.Node, line: int, where: str) -> Node:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line, where)
        if node.tag not in {_TAG + "map", _TAG + "seq"}:
            return self._broken(line, where, f"the tag {node.tag[:60]!r} is not allowed here")
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, line, where)
        return self._mapping(node, line, where)

    def _sequence(self, node: yaml.SequenceNode, line: int, where: str) -> Node:
        items = [self.node(item, f"{where}[{i}]") for i, item in enumerate(node.value, 1)]
        items = [item for item in items if item.text != ""]
        return Node(line, items, _shown("list", items), unset=_unset_in(items))

    def _mapping(self, node: yaml.Node, line: int, where: str) -> Node:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            key_line = key.start_mark.line + 1
            if key.tag == _TAG + "merge":
                self._merge(merged, self.node(value, where), key_line, where)
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._faults.add(key_line, where, "a key must be a word, not a list or a mapping")
                continue
            inner = at(where, _shown_key(key.value))
            if key.value in own:
                self._faults.add(
                    key_line, inner, f"given twice, first in line {own[key.value].line}"
                )
                continue
            # The line of the key, not of the value: a block begins on the line after its key.
            own[key.value] = replace(self.node(value, inner), line=key_line)
        entries = {key: child for key, child in {**merged, **own}.items() if child.text != ""}
        unset = _unset_in(entries.values())
        return Node(line, entries, _shown("mapping", entries), unset=unset)

    def _merge(self, into: dict[str, Node], source: Node, line: int, where: str) -> None:
        items = [source]
        if isinstance(source.value, list):
            items = source.value
        for item in items:
            if not item.is_mapping:
                self._faults.add(line, where, "'<<' needs a mapping, or a list of mappings")
                continue
            self._merged_keys += len(item.entries)
            if self._merged_keys > _MAX_MERGED_KEYS:
                message = f"more than {_MAX_MERGED_KEYS} keys come in by '<<'"
                self._faults.add(line, where, message)
                return
            for key, child in item.entries.items():
                into.setdefault(key, child)

    def _scalar(self, node: yaml.ScalarNode, line: int, where: str) -> Node:
        if node.tag not in _SCALARS:
            return self._broken(line, where, f"the tag {node.tag[:60]!r} is not allowed here")
        written = node.value
        text, unset = self._expand(written, line, where)
        if text is None:
            return Node(line, BROKEN, "", unset=unset)
        tag = node.tag
        if text != written:  # quoted or not: in a flow mapping, ${VAR} needs quotes
            tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        expanded = None
        if "${" in written:
            expanded = text
        shown = _shown_text(written)
        if tag in {_TAG + "str", _TAG + "timestamp"}:  # a model's name may look like a date
            return Node(line, text, shown, expanded)
        try:
            value = self._loader.construct_object(yaml.ScalarNode(tag, text))
        except (ValueError, yaml.YAMLError):  # such as an int of 5,000 digits
            return self._broken(line, where, f"{shown} cannot be read as {tag.removeprefix(_TAG)}")
        if value is None:
            return Node(line, None, "null", expanded)
        return Node(line, value, shown.strip("'"), expanded)

    def _expand(self, written: str, line: int, where: str) -> tuple[str | None, frozenset[Unset]]:
        """Return the text with its variables replaced; None, and those not set, if it cannot be."""
        unset: set[Unset] = set()
        is_broken = False

        def replacement(match: re.Match[str]) -> str:
            nonlocal is_broken
            if match["escaped"]:
                return "${"
            name, default = match["name"], match["default"]
            if name is None:
                is_broken = True
                shown = repr(match[0][:_MAX_SHOWN_CHARS])
                message = f"cannot read {shown}; write ${{VAR}}, ${{VAR:-default}}, or $${{"
                self._faults.add(line, where, message)
                return ""
            value = self._environ.get(name) or default
            if value is None:
                is_broken = True
                message = f"${{{name}}} is not set; set it, or write ${{{name}:-default}}"
                self._faults.add(line, where, message)
                unset.add(Unset(name, line, _fault(where, message)))
            return value or ""

        text = _VARIABLE.sub(replacement, written)
        if is_broken:
            return None, frozenset(unset)
        return text, frozenset()

    def _broken(self, line: int, where: str, message: str) -> Node:
        self._faults.add(line, where, message)
        return Node(line, BROKEN, "")


def _unset_in(nodes: Iterable[Node]) -> frozenset[Unset]:
    return frozenset[Unset]().union(*(node.unset for node in nodes))


def _shown(kind: str, content: list[Node] | dict[str, Node]) -> str:
    if content:
        return f"a {kind}"
    return f"an empty {kind}"


def _shown_key(key: str) -> str:
    if not key.isprintable():
        key = ascii(key)
    return key[:64]


def _shown_text(text: str) -> str:
    if len(text) > _MAX_SHOWN_CHARS:
        text = text[: _MAX_SHOWN_CHARS - 3] + "..."
    return repr(text)

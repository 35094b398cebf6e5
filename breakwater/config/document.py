"""
YAML as a tree that remembers its lines, with the variables expanded.

`${VAR}` must be set, `${VAR:-default}` may be, `$${` is a plain `${`; an empty variable counts as
not set, and a value that comes out empty as not written. What a variable held is never shown: a
node knows the text that stood in the file. YAML 1.1 as PyYAML reads it, without its tags;
anchors and merge keys work, a key given twice is a fault.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from breakwater.errors import ConfigError

MAX_BYTES = 256 * 1024  # 1.5 s for PyYAML; the longest system prompts fit
_MAX_MERGED = 10_000  # keys brought in by `<<`: the one way a small file can still grow large

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$\{)|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\{[^}]*\}?))"
)
_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp")}


class _Broken:
    """The value of a node about which a fault is already told."""


BROKEN = _Broken()


@dataclass(frozen=True, slots=True)
class Unset:
    """A variable that is not set, and the fault that says so."""

    variable: str
    line: int
    fault: str


@dataclass(frozen=True, slots=True)
class Node:
    """One value and where it stands."""

    line: int
    value: Any
    """A scalar, `dict[str, Node]`, `list[Node]`, or BROKEN."""
    shown: str
    """How a message shows it."""
    text: str | None = None
    """The text a variable was expanded to; None where there was none."""
    unset: frozenset["Unset"] = frozenset()
    """The variables in it that must be set, and are not."""

    @property
    def plain(self) -> Any:
        """The value; a list with its own items unwrapped."""
        if not isinstance(self.value, list):
            return self.value
        return [item.value if item.text is None else item.text for item in self.value]


class Faults:
    """What is wrong with a file, all of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: dict[tuple[int, str], None] = {}

    def add(self, line: int, where: str, what: str) -> None:
        """Add one fault; `where` is the path of keys, and may be empty."""
        self._told[line, f"{where}: {what}" if where else what] = None

    def excuse(self, unset: Iterable[Unset]) -> None:
        """Forget the faults about these variables: what needs them is left out."""
        for each in unset:
            self._told.pop((each.line, each.fault), None)

    def raise_if_any(self) -> None:
        """
        Raise what was told, by line.

        Raises:
            ConfigError: With one line a fault; `details["faults"]` has them one by one.
        """
        if not self._told:
            return
        lines = [f"{self._path}:{line}: {what}" for line, what in sorted(self._told)]
        count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
        raise ConfigError("\n  ".join([f"{self._path} has {count}:", *lines]), {"faults": lines})


def read_bytes(path: Path) -> bytes:
    """
    Return what the file holds.

    Raises:
        ConfigError: It cannot be read, or is too large to be a roles file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        why = f"cannot be read: {error.strerror}; is ROLES_FILE right?"
        raise _refused(path, None, why) from error
    if len(content) > MAX_BYTES:
        raise _refused(path, None, f"larger than {MAX_BYTES // 1024} KiB, no roles file is")
    return content


def parse(content: bytes, path: Path, environ: Mapping[str, str], faults: Faults) -> Node:
    """
    Return the tree; add to `faults` what is wrong with its YAML or its variables.

    Raises:
        ConfigError: It is no YAML at all, so that nothing else can be said of it.
    """
    try:
        loader, root = _compose(content, path)
        return _Reader(loader, environ, faults).node(root, "")
    except RecursionError:
        raise _refused(path, 1, "nested too deeply") from None


def keys_of(path: Path, key: str) -> frozenset[str] | None:
    """
    Return the keys of the mapping under a key of the file; None if there is no such mapping.

    Raises:
        ConfigError: The file cannot be read, or is no YAML.
    """
    # What a variable holds, and whether it is set at all, is none of this caller's business.
    top = parse(read_bytes(path), path, {}, Faults(path)).value
    found = top.get(key) if isinstance(top, dict) else None
    return frozenset(found.value) if found and isinstance(found.value, dict) else None


def _compose(content: bytes, path: Path) -> tuple[yaml.SafeLoader, yaml.Node]:
    text = ""
    try:
        text = content.decode("utf-8-sig")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(path, line, "not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        # Not str(error): it quotes the line, and a key may stand in it.
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not YAML"
        raise _refused(path, mark.line + 1 if mark else 1, problem) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refused(path, line, "a character that YAML does not allow") from None
    if root is None:
        raise _refused(path, 1, "empty; it needs providers and roles")
    return loader, root


def _refused(path: Path, line: int | None, what: str) -> ConfigError:
    """Build the error of a file of which nothing else can be said."""
    fault = f"{path}: {what}" if line is None else f"{path}:{line}: {what}"
    return ConfigError(fault, {"faults": [fault]})


class _Reader:
    """From PyYAML's nodes to ours; an aliased one is read once, so aliases cannot multiply."""

    def __init__(self, loader: yaml.SafeLoader, environ: Mapping[str, str], faults: Faults) -> None:
        self._loader = loader
        self._environ = environ
        self._faults = faults
        self._read: dict[int, Node] = {}
        self._open: set[int] = set()
        self._merged = 0

    def node(self, node: yaml.Node, where: str) -> Node:
        known = self._read.get(id(node))
        if known is not None:
            return known
        line = node.start_mark.line + 1
        if id(node) in self._open:
            return self._broken(line, where, "an alias stands inside of what it stands for")
        self._open.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            read = self._scalar(node, line, where)
        elif node.tag not in {_TAG + "map", _TAG + "seq"}:
            read = self._broken(line, where, f"the tag {node.tag[:60]!r} is not allowed here")
        elif isinstance(node, yaml.SequenceNode):
            items = [self.node(item, f"{where}[{i}]") for i, item in enumerate(node.value, 1)]
            items = [item for item in items if item.text != ""]
            unset = frozenset().union(*(item.unset for item in items))
            read = Node(line, items, "a list" if items else "an empty list", unset=unset)
        else:
            read = self._mapping(node, line, where)
        self._read[id(node)] = read
        return read

    def _mapping(self, node: yaml.Node, line: int, where: str) -> Node:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            if key.tag == _TAG + "merge":
                self._merge(merged, self.node(value, where), at, where)
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._faults.add(at, where, "a key must be a word, not a list or a mapping")
                continue
            word = (key.value if key.value.isprintable() else ascii(key.value))[:64]
            inner = f"{where}.{word}" if where else word
            if key.value in own:
                self._faults.add(at, inner, f"given twice, first in line {own[key.value].line}")
                continue
            # The key's line, not the value's: a block begins on the line after its key.
            own[key.value] = replace(self.node(value, inner), line=at)
        whole = {key: child for key, child in {**merged, **own}.items() if child.text != ""}
        unset = frozenset().union(*(child.unset for child in whole.values()))
        return Node(line, whole, "a mapping" if whole else "an empty mapping", unset=unset)

    def _merge(self, into: dict[str, Node], source: Node, line: int, where: str) -> None:
        for item in source.value if isinstance(source.value, list) else [source]:
            if not isinstance(item.value, dict):
                self._faults.add(line, where, "'<<' needs a mapping, or a list of mappings")
                continue
            self._merged += len(item.value)
            if self._merged > _MAX_MERGED:
                self._faults.add(line, where, f"more than {_MAX_MERGED} keys come in by '<<'")
                return
            for key, child in item.value.items():
                into.setdefault(key, child)

    def _scalar(self, node: yaml.ScalarNode, line: int, where: str) -> Node:
        if node.tag not in _SCALARS:
            return self._broken(line, where, f"the tag {node.tag[:60]!r} is not allowed here")
        written = node.value
        text, unset = self._expand(written, line, where)
        if text is None:
            return Node(line, BROKEN, "", unset=unset)
        tag = node.tag
        if text != written:  # quoted or not: in a flow mapping, ${VAR} has to be
            tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        shown = repr(written if len(written) <= 60 else written[:57] + "...")
        expanded = text if "${" in written else None
        if tag in {_TAG + "str", _TAG + "timestamp"}:  # a model may be named like a day
            return Node(line, text, shown, expanded)
        try:
            value = self._loader.construct_object(yaml.ScalarNode(tag, text))
        except (ValueError, yaml.YAMLError):  # such as an int of 5,000 digits
            return self._broken(line, where, f"{shown} cannot be read as {tag.removeprefix(_TAG)}")
        return Node(line, value, "null" if value is None else shown.strip("'"), expanded)

    def _expand(self, written: str, line: int, where: str) -> tuple[str | None, frozenset[Unset]]:
        """Return the text with its variables replaced, None if that cannot be done; and why."""
        missing = False
        unset: set[Unset] = set()

        def replaced(match: re.Match[str]) -> str:
            nonlocal missing
            if match["escaped"]:
                return "${"
            name = match["name"]
            if name is None:
                missing = True
                what = f"cannot read {match[0][:60]!r}; write ${{VAR}}, ${{VAR:-default}}, or $${{"
                self._faults.add(line, where, what)
                return ""
            if value := self._environ.get(name):
                return value
            if match["default"] is None:
                missing = True
                what = f"${{{name}}} is not set; set it, or write ${{{name}:-default}}"
                self._faults.add(line, where, what)
                unset.add(Unset(name, line, f"{where}: {what}" if where else what))
            return match["default"] or ""

        text = _VARIABLE.sub(replaced, written)
        return None if missing else text, frozenset(unset)

    def _broken(self, line: int, where: str, what: str) -> Node:
        self._faults.add(line, where, what)
        return Node(line, BROKEN, "")

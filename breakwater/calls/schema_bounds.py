"""
How large a schema is, and how much work it can make of an answer.

A validator visits each value of an answer at most once for each subschema that applies to it, so a
schema's *expansion*, its values with every reference written out, bounds the work. A recursive
schema has no such bound: with two ways back into itself it doubles the work at each level.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote

MAX_BYTES = 256 * 1024
"""Of a schema as JSON. OpenAI takes 120,000 characters, Anthropic and Google less."""
MAX_VALUES = 20_000
"""In a schema: objects, lists, names, texts, numbers. OpenAI takes 5,000 properties."""
MAX_EXPANSION = 100_000
"""Values of a schema with every reference written out."""
MAX_PATTERNS = 100
"""Regular expressions in a schema; compiling one takes up to 20 ms."""
MAX_PATTERN = 2_000
"""Characters of a regular expression."""

NOWHERE = "a $ref leads to no schema; it must point into the schema itself, as #/$defs/…"

_SINGLE = frozenset(
    {
        "items", "additionalItems", "unevaluatedItems", "contains", "additionalProperties",
        "unevaluatedProperties", "propertyNames", "contentSchema",
    }
)  # fmt: skip
_LISTS = frozenset({"prefixItems", "items"})
_MAPS = frozenset({"properties", "patternProperties"})
_SAME_SINGLE = frozenset({"not", "if", "then", "else", "extends"})
_SAME_LISTS = frozenset({"allOf", "anyOf", "oneOf"})
_SAME_MAPS = frozenset({"dependentSchemas", "dependencies"})
_DEFINITIONS = frozenset({"$defs", "definitions"})
_UNCOUNTABLE = frozenset(
    {"unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"}
)

Schema = Mapping[str, Any]


class Unbounded(ValueError):  # noqa: N818 - the schema is at fault
    """The schema is too large, names an unknown draft, or has a reference without an end."""


def expansion_of(schema: Schema) -> int | None:
    """
    Check a schema's size and return its expansion.

    Returns:
        The number of values with every reference written out; None if no such number bounds the
        work: the schema is recursive, or refers in a way that is not followed here.

    Raises:
        Unbounded: With the size and its limit, or with what is wrong with a reference.
    """
    refers: dict[int, Schema] = {}
    every = list(_every(schema, refers))
    _check_patterns(_patterns(every))
    is_countable = not any(each.keys() & _UNCOUNTABLE for each in every) and all(
        id(each) in refers for each in every if "$ref" in each
    )
    # A nested $id changes what the references below it mean.
    is_countable = is_countable and not any(
        isinstance(each.get("$id", each.get("id")), str) for each in every[1:]
    )
    # Each is a start of its own: a circle may stand in a definition that nothing refers to.
    _, circular = _size(every, refers, everything=False)
    if circular:
        raise Unbounded("it refers to itself without an end")
    size, recursive = _size([schema], refers, everything=True)
    if size > MAX_EXPANSION:
        raise Unbounded(
            f"it has {min(size, 10**12)} values with its references written out; "
            f"at most {MAX_EXPANSION} are allowed"
        )
    return size if is_countable and not recursive else None


def pattern_count(schema: Schema) -> int:
    """Count the regular expressions in a schema."""
    return len(_patterns(list(_every(schema, {}))))


def _every(schema: Schema, refers: dict[int, Schema]) -> Iterator[Schema]:
    """Walk over all subschemas, the definitions' too; note where each reference leads."""
    waiting = [schema]
    seen: set[int] = set()  # all are parts of the schema, which stays
    values = 0
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        values += _own(each)
        if values > MAX_VALUES:
            raise Unbounded(f"it has more than {MAX_VALUES} values; no more are allowed")
        if (target := _target(schema, each.get("$ref"))) is not None:
            refers[id(each)] = target
            waiting.append(target)
        for key, value in each.items():
            waiting += _subschemas(key, value)


def _patterns(every: list[Schema]) -> list[str]:
    patterns = [each["pattern"] for each in every if isinstance(each.get("pattern"), str)]
    for each in every:
        names = each.get("patternProperties")
        patterns += names if isinstance(names, Mapping) else ()
    return patterns


def _check_patterns(patterns: list[str]) -> None:
    if len(patterns) > MAX_PATTERNS:
        raise Unbounded(
            f"it has {len(patterns)} regular expressions; at most {MAX_PATTERNS} are allowed"
        )
    if (longest := max(map(len, patterns), default=0)) > MAX_PATTERN:
        raise Unbounded(
            f"it has a regular expression of {longest} characters; "
            f"at most {MAX_PATTERN} are allowed"
        )


def _holds_schemas(key: str) -> bool:
    return key in _SINGLE | _LISTS | _MAPS | _SAME_SINGLE | _SAME_LISTS | _SAME_MAPS | _DEFINITIONS


def _subschemas(key: str, value: Any, *, same: bool | None = None) -> Iterator[Schema]:
    """
    Return the subschemas that a keyword holds.

    Args:
        same: True: only those that apply to the same value; None: all.
    """
    singles = _SAME_SINGLE if same else _SINGLE | _SAME_SINGLE
    lists = _SAME_LISTS if same else _LISTS | _SAME_LISTS
    maps = _SAME_MAPS if same else _MAPS | _SAME_MAPS | (_DEFINITIONS if same is None else set())
    held: list[Any] = []
    if key in lists and isinstance(value, list):
        held = value
    elif key in maps and isinstance(value, Mapping):
        held = list(value.values())
    elif key in singles:
        held = [value]
    return (each for each in held if isinstance(each, Mapping))


def _size(
    starts: list[Schema], refers: Mapping[int, Schema], *, everything: bool
) -> tuple[int, bool]:
    """
    Add up a schema's values with its references written out, without recursion.

    Args:
        starts: The subschemas to begin at; the size is that of the first.
        everything: False: only what applies to the same value, as `allOf` and `$ref` do.

    Returns:
        The number of values, and whether a part of the schema is reached from itself.
    """
    sizes: dict[int, int] = {}
    is_open: set[int] = set()
    circular = False
    waiting = [(start, False) for start in starts]
    while waiting:
        each, done = waiting.pop()
        if done:
            is_open.discard(id(each))
            below = _next(each, refers, everything=everything)
            sizes[id(each)] = _own(each) + sum(sizes.get(id(one), 1) for one in below)
        elif id(each) in is_open:
            circular = True
        elif id(each) not in sizes:
            is_open.add(id(each))
            waiting.append((each, True))
            waiting += [(one, False) for one in _next(each, refers, everything=everything)]
    return sizes.get(id(starts[0]), 1), circular


def _next(each: Schema, refers: Mapping[int, Schema], *, everything: bool) -> list[Schema]:
    below = [
        one for key, value in each.items() for one in _subschemas(key, value, same=not everything)
    ]
    if id(each) in refers:
        below.append(refers[id(each)])
    return below


def _own(schema: Schema) -> int:
    """Count a schema's own values, with the names of its subschemas and without what they hold."""
    own = 1
    for key, value in schema.items():
        if not _holds_schemas(key):
            own += sum(1 for _ in islice(values_of(value), MAX_VALUES + 1))
        else:
            own += 1 + (len(value) if isinstance(value, Mapping | list) else 0)
    return own


def values_of(data: Any) -> Iterator[Any]:
    """Walk over a JSON value, all that is in it, and the names of objects' members."""
    waiting = [data]
    while waiting:
        each = waiting.pop()
        yield each
        if isinstance(each, Mapping):
            waiting += each.keys()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _target(root: Schema, reference: Any) -> Schema | None:
    """
    Find what a JSON pointer into the schema leads to (RFC 6901).

    Returns:
        The subschema; None for a boolean one, and for a reference of another form.

    Raises:
        Unbounded: It leads nowhere.
    """
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    node: Any = root
    for step in unquote(reference[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        else:
            raise Unbounded(NOWHERE)
    if not isinstance(node, Mapping | bool):
        raise Unbounded(NOWHERE)
    return node if isinstance(node, Mapping) else None

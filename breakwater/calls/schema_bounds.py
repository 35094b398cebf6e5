"""
Limit the size of a schema, and calculate how much work it can make of an answer.

A validator visits each value of an answer at most once for each subschema that applies to it. So
the work is limited by a schema's *expansion*: the number of its values with every reference written
out. A recursive schema has no such limit: with two references back to itself it doubles the work at
each level.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from urllib.parse import unquote

MAX_BYTES = 256 * 1024
"""Limit for a schema as JSON. OpenAI accepts 120,000 characters, Anthropic and Google fewer."""
MAX_VALUES = 20_000
"""Limit for objects, lists, names, texts and numbers. OpenAI accepts 5,000 properties."""
MAX_EXPANSION = 100_000
"""Limit for the values of a schema with every reference written out."""
MAX_PATTERNS = 100
"""Limit for regular expressions in a schema; compiling one takes up to 20 ms."""
MAX_PATTERN = 2_000
"""Limit for the characters of one regular expression."""

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

Schema = Mapping[str, object]


class Unbounded(ValueError):  # noqa: N818 - the schema is at fault
    """The schema is too large, names an unknown draft, or has a reference without an end."""


def expansion_of(schema: Schema) -> int | None:
    """
    Check a schema's size and return its expansion.

    Returns:
        The number of values with every reference written out; None if this number does not limit
        the work, because the schema is recursive or has references of another form.

    Raises:
        Unbounded: The schema is too large, or a reference is at fault.
    """
    refers: dict[int, Schema] = {}
    every = list(_every(schema, refers))
    _check_patterns(_patterns(every))
    is_countable = not any(each.keys() & _UNCOUNTABLE for each in every) and all(
        id(each) in refers for each in every if "$ref" in each
    )
    # A nested $id changes the meaning of the references below it.
    is_countable = is_countable and not any(
        isinstance(each.get("$id", each.get("id")), str) for each in every[1:]
    )
    # Start at each subschema: a circle may be in a definition that nothing refers to.
    _, circular = _size(every, refers, everything=False)
    if circular:
        raise Unbounded("it refers to itself without an end")
    size, recursive = _size([schema], refers, everything=True)
    if size > MAX_EXPANSION:
        raise Unbounded(
            f"it has {min(size, 10**12)} values with its references written out; "
            f"at most {MAX_EXPANSION} are allowed"
        )
    if recursive or not is_countable:
        return None
    return size


def pattern_count(schema: Schema) -> int:
    """Count the regular expressions in a schema."""
    return len(_patterns(list(_every(schema, {}))))


def _every(schema: Schema, refers: dict[int, Schema]) -> Iterator[Schema]:
    """Yield all subschemas, including those of definitions; record the target of each reference."""
    waiting = [schema]
    seen: set[int] = set()  # ids are stable, because the schema keeps its parts alive
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
    patterns: list[str] = []
    for each in every:
        pattern, names = each.get("pattern"), each.get("patternProperties")
        if isinstance(pattern, str):
            patterns.append(pattern)
        if isinstance(names, Mapping):
            patterns += names
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


def _subschemas(key: str, value: object, *, same: bool | None = None) -> Iterator[Schema]:
    """
    Return the subschemas in the value of a keyword.

    Args:
        same: True: only those that apply to the same value; False: all but definitions; None: all.
    """
    singles, lists, maps = _SAME_SINGLE, _SAME_LISTS, _SAME_MAPS
    if not same:
        singles, lists, maps = singles | _SINGLE, lists | _LISTS, maps | _MAPS
    if same is None:
        maps |= _DEFINITIONS
    held: list[object] = []
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
        everything: False: count only subschemas of the same value, as of `allOf` and `$ref`.

    Returns:
        The number of values, and whether a part of the schema refers back to itself.
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
    """Count a schema's own values: names of subschemas count, the subschemas themselves do not."""
    own = 1
    for key, value in schema.items():
        if not _holds_schemas(key):
            own += sum(1 for _ in islice(values_of(value), MAX_VALUES + 1))
        else:
            own += 1
            if isinstance(value, Mapping | list):
                own += len(value)
    return own


def values_of(data: object) -> Iterator[object]:
    """Yield a JSON value, all values inside it, and the names of the members of objects."""
    waiting = [data]
    while waiting:
        each = waiting.pop()
        yield each
        if isinstance(each, Mapping):
            waiting += each.keys()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _target(root: Schema, reference: object) -> Schema | None:
    """
    Find the target of a JSON pointer into the schema (RFC 6901).

    Returns:
        The subschema; None for a boolean one, and for a reference of another form.

    Raises:
        Unbounded: The pointer has no target.
    """
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    node: object = root
    for step in unquote(reference[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        else:
            raise Unbounded(NOWHERE)
    if isinstance(node, Mapping):
        return node
    if isinstance(node, bool):
        return None
    raise Unbounded(NOWHERE)

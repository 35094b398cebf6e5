"""
Make a value that satisfies a JSON Schema (2020-12, the keywords that are used with models).

The same schema and text always give the same value. The text can set parts of it: as far as the
schema allows, each number is the first number of the text, and each string its first quoted words.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

WORD = "word"
FORMATS = {
    "date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z", "time": "12:00:00Z",
    "duration": "PT1H", "email": "one@example.com", "hostname": "example.com",
    "uri": "https://example.com/", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}  # fmt: skip
DEEPEST = 12
"""From this depth on optional parts are left out, so that a recursive schema ends."""
BOTTOM = 60
"""There is no value: the schema requires a circle."""
MERGED = ("properties", "$defs")


def instance(schema: Mapping[str, Any], text: str = "") -> Any:
    """
    Return a value that satisfies a schema.

    Args:
        schema: The JSON Schema; `pattern` is not followed.
        text: The source of the number and the words.

    Raises:
        ValueError: There is no finite value, or a reference leads nowhere.
    """
    number = re.search(r"-?\d+", text)
    quoted = re.search(r"\"([^\"]+)\"|'([^']+)'|“([^”]+)”|`([^`]+)`", text)
    words = next(filter(None, quoted.groups())) if quoted else WORD
    return _Maker(schema, int(number[0]) if number else None, words).make(schema)


@dataclass(frozen=True, slots=True)
class _Maker:
    root: Mapping[str, Any]
    number: int | None
    words: str
    depth: int = 0

    def make(self, schema: object) -> Any:
        if self.depth > BOTTOM:
            raise ValueError("the schema has no finite instance")
        deeper = replace(self, depth=self.depth + 1)
        plain = deeper.resolve(schema)
        if "const" in plain:
            return plain["const"]
        if plain.get("enum"):
            return plain["enum"][0]
        return deeper.make_typed(_type_of(plain), plain)

    def make_typed(self, kind: str, plain: Mapping[str, Any]) -> Any:
        match kind:
            case "object":
                return self.make_object(plain)
            case "array":
                return self.make_array(plain)
            case "integer" | "number":
                return _bounded(1 if self.number is None else self.number, plain, kind)
            case "boolean" | "null":
                return True if kind == "boolean" else None
            case _:
                return _fitting(self.words, plain)

    def resolve(self, schema: object) -> dict[str, Any]:
        """Return the schema with references resolved, the first branch taken, `allOf` merged."""
        plain = dict(schema) if isinstance(schema, Mapping) else {}
        for _ in range(BOTTOM):
            if (ref := plain.pop("$ref", None)) is not None:
                plain = _merged(self.find(str(ref)), plain)
            elif (every := plain.pop("allOf", None)) is not None:
                for each in every:
                    plain = _merged(plain, self.resolve(each))
            elif (some := plain.pop("anyOf", None) or plain.pop("oneOf", None)) is not None:
                plain = _merged(plain, self.choose(some))
            else:
                return plain
        raise ValueError("the schema's references are a circle")

    def choose(self, branches: list[Any]) -> dict[str, Any]:
        """Return the first branch; far down, one that ends the recursion, if there is one."""
        flat = [each for each in branches if isinstance(each, dict) and "$ref" not in each]
        return dict(flat[0] if flat and self.depth > DEEPEST else branches[0])

    def find(self, ref: str) -> dict[str, Any]:
        found: Any = self.root
        for step in ref.removeprefix("#").strip("/").split("/") if ref != "#" else []:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise ValueError(f"{ref} leads nowhere")
            found = found[name]
        return dict(found)

    def make_object(self, plain: Mapping[str, Any]) -> dict[str, Any]:
        required = plain.get("required", [])
        properties = {**{name: {} for name in required}, **plain.get("properties", {})}
        return {
            name: self.make(inner)
            for name, inner in properties.items()
            if name in required or self.depth <= DEEPEST
        }

    def make_array(self, plain: Mapping[str, Any]) -> list[Any]:
        items = list(plain.get("prefixItems", []))
        usual = 1 if self.depth <= DEEPEST and plain.get("items", True) is not False else 0
        least = int(plain.get("minItems", min(usual, plain.get("maxItems", usual))))
        rest = max(0, max(least, usual if "maxItems" not in plain else least) - len(items))
        values = [self.make(item) for item in items]
        values += [self.make(plain.get("items", {})) for _ in range(rest)]
        return _distinct(values) if plain.get("uniqueItems") else values


def _type_of(plain: Mapping[str, Any]) -> str:
    kind = plain.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if kind:
        return str(kind)
    if "properties" in plain or "required" in plain:
        return "object"
    return "array" if "items" in plain or "prefixItems" in plain else "string"


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    both = {**first, **second}
    for name in MERGED:
        if name in first and name in second:
            both[name] = {**first[name], **second[name]}
    if "required" in first and "required" in second:
        both["required"] = [*first["required"], *second["required"]]
    return both


def _bounded(number: int, plain: Mapping[str, Any], kind: str) -> int | float:
    """Move a number into its bounds; keep it whole if they allow it."""
    step = plain.get("multipleOf", 1 if kind == "integer" else 0)
    low = max(plain.get("minimum", -math.inf), plain.get("exclusiveMinimum", -math.inf))
    high = min(plain.get("maximum", math.inf), plain.get("exclusiveMaximum", math.inf))
    value: int | float = min(max(number, low), high)
    if step:
        value = math.ceil(value / step) * step
        while value > high or value == plain.get("exclusiveMaximum"):
            value -= step
        while value < low or value == plain.get("exclusiveMinimum"):
            value += step
    elif value in (plain.get("exclusiveMinimum"), plain.get("exclusiveMaximum")):
        value = (max(low, high - 2) + min(high, low + 2)) / 2
    return int(value) if kind == "integer" else value


def _fitting(words: str, plain: Mapping[str, Any]) -> str:
    if plain.get("format") in FORMATS:
        return FORMATS[plain["format"]]
    least = int(plain.get("minLength", 0))
    return words.ljust(least, "x")[: plain.get("maxLength")]


def _distinct(values: list[Any]) -> list[Any]:
    """Make equal values distinct where possible: numbers count on, words get a number."""
    seen: dict[str, Any] = {}
    for at, value in enumerate(values):
        fresh = value
        if json.dumps(value) in seen:
            fresh = f"{value}{at}" if isinstance(value, str) else value
            fresh = value + at if type(value) in (int, float) else fresh
        seen[json.dumps(fresh)] = fresh
    return list(seen.values())

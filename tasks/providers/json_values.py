"""JSON as servers send it: parsed, and in any shape."""

from collections.abc import Mapping
from typing import Any, TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""A parsed JSON value."""
JsonObject: TypeAlias = dict[str, Json]
"""A parsed JSON object."""
JsonBody: TypeAlias = dict[str, Any]
"""A JSON object in the shape of one vendor's API, which the code that uses it knows."""
JsonFields: TypeAlias = Mapping[str, Any]
"""The same, only read."""

_EMPTY: JsonObject = {}


def as_object(value: object) -> Mapping[str, Json]:
    """Return a JSON object as it is; an empty one in place of anything else."""
    if isinstance(value, dict):
        return value
    return _EMPTY


def as_list(value: object) -> list[Json]:
    """Return a JSON list as it is; an empty one in place of anything else."""
    if isinstance(value, list):
        return value
    return []


def as_text(value: object) -> str:
    """Return a string as it is; an empty one in place of anything else."""
    if isinstance(value, str):
        return value
    return ""

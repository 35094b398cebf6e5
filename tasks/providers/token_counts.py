"""
Read token counts as servers send them; a bad count never harms an answer that is paid for.

A count that is not a whole number (null, text, a fraction, NaN, negative, absurdly large) is
unknown: None, never 0. A breakdown (cached, written, reasoning) is different: servers that do not
break their counts down omit it or send null, and the vendors' own types allow both. It is 0 then.

Sources: the `usage` objects of the API references of Anthropic (`cache_read_input_tokens: number |
null`), OpenAI (`prompt_tokens_details` optional), vLLM and LiteLLM (details null), Gemini.
"""

from collections.abc import Mapping

LARGEST = 1_000_000_000
"""No call has a billion tokens: a hundred times the largest window there is."""

_EMPTY: Mapping[str, object] = {}


def object_at(used: object, name: str = "") -> Mapping[str, object]:
    """Return an object, or the named one in it; an empty one in place of anything else."""
    value = used
    if name and isinstance(used, dict):
        value = used.get(name)
    if isinstance(value, dict):
        return value
    return _EMPTY


def read_count(used: Mapping[str, object], *names: str) -> int | None:
    """Read the first of these counts that was sent; None if it is unknown."""
    for name in names:
        if (value := used.get(name)) is not None:
            return whole_number(value)
    return None


def read_part(used: Mapping[str, object], name: str) -> int | None:
    """Read one count of a breakdown; 0 if it is missing or null."""
    value = used.get(name)
    if value is None:
        return 0
    return whole_number(value)


def sum_counts(*counts: int | None) -> int | None:
    """Add counts up; None if one of them is unknown."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def whole_number(value: object) -> int | None:
    """Return a whole number; None for anything else."""
    if type(value) is int and 0 <= value <= LARGEST:
        return value
    return None

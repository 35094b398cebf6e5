"""
Token counts, as servers send them: read so that none can harm an answer that is paid for.

A count that is no whole number (null, text, a fraction, NaN, negative, absurdly large) is unknown:
None, never 0. A breakdown (cached, written, reasoning) is different: servers that do not break
their counts down leave it out or send null, and the vendors' own types allow both. It is 0 then.

Sources: the `usage` objects of the API references of Anthropic (`cache_read_input_tokens: number |
null`), OpenAI (`prompt_tokens_details` optional), vLLM and LiteLLM (details null), Gemini.
"""

from collections.abc import Mapping
from typing import Any

LARGEST = 1_000_000_000
"""No call has a billion tokens: a hundred times the largest window there is."""

_EMPTY: Mapping[str, Any] = {}


def object_at(used: object, name: str = "") -> Mapping[str, Any]:
    """Return an object, or the named one in it; an empty one in place of anything else."""
    value = used.get(name) if name and isinstance(used, Mapping) else used
    return value if isinstance(value, Mapping) else _EMPTY


def read_count(used: Mapping[str, Any], *names: str) -> int | None:
    """Read the first of these counts that is there; None if it is unknown."""
    sent = (used[name] for name in names if used.get(name) is not None)
    return whole_number(next(sent, None))


def read_part(used: Mapping[str, Any], name: str) -> int | None:
    """Read one count of a breakdown; 0 if it is left out or null."""
    value = used.get(name)
    return 0 if value is None else whole_number(value)


def sum_counts(*counts: int | None) -> int | None:
    """Add counts up; None if one of them is unknown."""
    known = [each for each in counts if each is not None]
    return sum(known) if len(known) == len(counts) else None


def whole_number(value: object) -> int | None:
    """Return a whole number; None for anything else."""
    if type(value) is int and 0 <= value <= LARGEST:
        return value
    return None

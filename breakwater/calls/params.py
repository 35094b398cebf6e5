"""
The parameters of a completion, in our words; each adapter maps them to its vendor's.

The same table serves the roles file and `complete.delay(..., params={...})`.
"""

from collections.abc import Mapping
from typing import Any

from breakwater.calls.value_types import ValueType, number, one_of, unknown_key, whole
from breakwater.errors import nearest

_INT32 = 2**31 - 1  # Gemini's integers; OpenAI's are wider

PARAMS: Mapping[str, ValueType] = {
    "max_output_tokens": whole(1, _INT32),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "stop": ValueType(
        # four is the most that OpenAI's Chat Completions takes, the fewest of all vendors
        "a list of 1 to 4 non-empty strings",
        lambda value: (
            isinstance(value, list)
            and 1 <= len(value) <= 4
            and all(isinstance(item, str) and item for item in value)
        ),
    ),
    "seed": whole(-_INT32 - 1, _INT32),
    # the words of openai 3.52 `ReasoningEffort`; adapters choose the nearest their vendor has
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
}

MAX_TOLD = 10
"""Faults that are named."""


def check_params(params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a call's parameters, one line a fault; empty if nothing."""
    faults: list[str] = []
    for name, value in params.items():
        if len(faults) > MAX_TOLD:
            faults.append("params: and perhaps more faults")
            break
        kind = PARAMS.get(name)
        if kind is None:
            faults.append(f"params: {unknown_key(str(name), PARAMS)}")
        elif not kind.accepts(value):
            hint = nearest(value, kind.choices) if isinstance(value, str) else ""
            faults.append(f"params.{name}: {_shown(value)} is not {kind.allowed}{hint}")
    return faults


def _shown(value: object) -> str:
    """Show what is short; anything longer may hold half the prompt."""
    if isinstance(value, bool | float | None) or (isinstance(value, str) and len(value) <= 24):
        return repr(value)
    if isinstance(value, int) and abs(value) < 10**18:
        return repr(value)
    return f"a {type(value).__name__}"

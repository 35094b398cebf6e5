"""
The parameters of a completion; each adapter maps them to the names of its vendor.

The same table checks the roles file and `complete.delay(..., params={...})`.
"""

from collections.abc import Mapping

from breakwater.calls.value_types import ValueType, number, one_of, unknown_key, whole
from breakwater.errors import nearest

_INT32 = 2**31 - 1  # Gemini's integers; OpenAI's are wider

PARAMS: Mapping[str, ValueType] = {
    "max_output_tokens": whole(1, _INT32),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "stop": ValueType(
        # OpenAI's Chat Completions accepts four; all other vendors accept more
        "a list of 1 to 4 non-empty strings",
        lambda value: (
            isinstance(value, list)
            and 1 <= len(value) <= 4
            and all(isinstance(item, str) and item for item in value)
        ),
    ),
    "seed": whole(-_INT32 - 1, _INT32),
    # the values of openai 3.52 `ReasoningEffort`; an adapter uses its vendor's nearest value
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
}

MAX_NAMED = 10
"""A message lists this many faults."""


def check_params(params: Mapping[str, object]) -> list[str]:
    """Return the faults of a call's parameters, one line each; empty if there are none."""
    faults: list[str] = []
    for name, value in params.items():
        if len(faults) > MAX_NAMED:
            faults.append("params: and perhaps more faults")
            break
        kind = PARAMS.get(name)
        if kind is None:
            faults.append(f"params: {unknown_key(str(name), PARAMS)}")
        elif not kind.accepts(value):
            hint = ""
            if isinstance(value, str):
                hint = nearest(value, kind.choices)
            faults.append(f"params.{name}: {_shown(value)} is not {kind.allowed}{hint}")
    return faults


def _shown(value: object) -> str:
    """Return a short value as it is; a longer one may contain half the prompt."""
    if isinstance(value, bool | float | None) or (isinstance(value, str) and len(value) <= 24):
        return repr(value)
    if isinstance(value, int) and abs(value) < 10**18:
        return repr(value)
    return f"a {type(value).__name__}"

"""Check the options of `complete`, and report every fault at once."""

from collections.abc import Mapping
from typing import TypedDict, cast

from breakwater.calls.media import check_text
from breakwater.calls.params import PARAMS, check_params
from breakwater.calls.schema import as_json_object, pydantic_schema, schema_fault
from breakwater.calls.tools import parse_tool_choice, parse_tools
from breakwater.content import JsonObject, Tool
from breakwater.errors import InvalidOption, InvalidPrompt, nearest

OPTIONS = (
    "system", "params", "metadata", "deadline_s", "schema", "tools", "tool_choice", "stream",
)  # fmt: skip
CELERY_OPTIONS = frozenset({
    "task_id", "countdown", "eta", "expires", "priority", "queue", "headers", "link", "link_error",
    "time_limit", "soft_time_limit", "retry", "ignore_result", "shadow", "serializer",
    "compression",
})  # fmt: skip
"""Celery's options that callers use; `complete` does not take them as keyword arguments."""
MAX_NAMED = 10
"""A message names this many unknown options, and counts the rest."""
MAX_DEADLINE_S = 10 * 365 * 86400


class CheckedOptions(TypedDict, total=False):
    """Options as `CompletionCall` holds them; only those that the caller has set."""

    system: str
    params: JsonObject
    metadata: JsonObject
    deadline_s: float
    schema: JsonObject
    tools: tuple[Tool, ...]
    tool_choice: str
    stream: bool


def check_options(options: Mapping[str, object]) -> CheckedOptions:
    """
    Check the options, and return those that the caller has set.

    Raises:
        InvalidOption: One or more do not fit; the message lists every fault.
    """
    options = to_wire(options)
    unknown = [str(name) for name in options if name not in OPTIONS]
    faults = [_unknown(name) for name in unknown[:MAX_NAMED]]
    if len(unknown) > MAX_NAMED:
        faults.append(f"and {len(unknown) - MAX_NAMED} more unknown options")
    chosen = {name: value for name, value in options.items() if value is not None}
    checked: JsonObject = {name: chosen[name] for name in ("system", "deadline_s") & chosen.keys()}
    faults += _check_system(chosen.get("system"))
    faults += _check_deadline(chosen.get("deadline_s"))
    for name in ("params", "metadata", "schema"):
        if name in chosen:
            checked[name] = _json_object(name, chosen[name], faults)
    faults += check_params(checked.get("params", {}))
    if "schema" in checked and (fault := schema_fault(checked["schema"])):
        faults.append(f"schema is not a valid JSON Schema: {fault}")
    if "tools" in chosen:
        checked["tools"] = parse_tools(chosen["tools"], faults)
    if "tool_choice" in chosen:
        checked["tool_choice"] = parse_tool_choice(
            chosen["tool_choice"], chosen.get("tools"), faults
        )
    if "stream" in chosen:
        checked["stream"] = chosen["stream"]
        faults += _check_stream(chosen["stream"])
    if faults:
        raise InvalidOption("; ".join(faults), {"faults": faults})
    return cast("CheckedOptions", checked)


def _unknown(name: str) -> str:
    """Return the fault of an unknown option: where it belongs, or which options exist."""
    fault = f"unknown option {name[:40]!r}"
    if name in CELERY_OPTIONS:
        return f"{fault}: it is Celery's; write apply_async((role, prompt), {name}=…)"
    if name in PARAMS:
        return f"{fault}: it is a parameter; write params={{{name!r}: …}}"
    return f"{fault}{nearest(name, OPTIONS) or '; there are ' + ', '.join(OPTIONS)}"


def to_wire(options: Mapping[str, object]) -> dict[str, object]:
    """
    Replace a pydantic model class by its JSON Schema, because JSON cannot hold a class.

    Raises:
        InvalidOption: The class is not a pydantic model, or has no JSON Schema.
    """
    schema = options.get("schema")
    if not isinstance(schema, type):
        return dict(options)
    try:
        return {**options, "schema": pydantic_schema(schema)}
    except ValueError as fault:
        raise InvalidOption(f"schema: {fault}") from None


def _json_object(name: str, value: object, faults: list[str]) -> JsonObject:
    try:
        return as_json_object(value)
    except ValueError as fault:
        faults.append(f"{name} {fault}")
        return {}


def _check_stream(stream: object) -> list[str]:
    if isinstance(stream, bool):
        return []
    return [f"stream is a {type(stream).__name__}; it must be true or false"]


def _check_system(system: object) -> list[str]:
    if not isinstance(system, str | None):
        return [f"system is a {type(system).__name__}; it must be a string"]
    try:
        check_text("system", system or "")
    except InvalidPrompt as fault:
        return [str(fault)]
    return []


def _check_deadline(deadline_s: object) -> list[str]:
    if deadline_s is None:
        return []
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float):
        return [f"deadline_s is a {type(deadline_s).__name__}; it must be a number of seconds"]
    if not 0 < deadline_s <= MAX_DEADLINE_S:
        return [
            f"deadline_s is {str(deadline_s)[:20]}; it must be more than 0 seconds, "
            f"and ten years at most"
        ]
    return []

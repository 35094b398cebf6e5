"""The options `tools` and `tool_choice`: functions that a model may ask to have called."""

import json
import re
from collections.abc import Mapping
from typing import Any

from breakwater.calls.schema import as_json_object, schema_fault
from breakwater.calls.server_tools import server_tool
from breakwater.content import Tool
from breakwater.errors import nearest

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What all vendors take."""
CHOICES = ("auto", "none", "required")
MAX_TOOLS = 512
"""OpenAI takes 128."""
MAX_BYTES = 1024 * 1024
"""Of all tools' parameters together, as JSON."""
MAX_TOLD = 10
"""Unknown keys of a tool that are named."""
_KEYS = {"name", "description", "parameters"}


def parse_tools(given: object, faults: list[str]) -> tuple[Tool, ...]:
    """Check the option `tools`; what does not fit is added to the faults."""
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        faults.append(f"tools is a {type(given).__name__}; it must be a list of tools")
        return ()
    if len(given) > MAX_TOOLS:
        faults.append(f"tools has {len(given)} tools; at most {MAX_TOOLS} are allowed")
        return ()
    tools: dict[str, Tool] = {}
    size = 0
    for at, item in enumerate(given):
        try:
            tool = _tool(item)
            size += len(json.dumps(tool.parameters))
            if size > MAX_BYTES:
                faults.append(
                    f"tools[{at}]: with its parameters there are {size} bytes as JSON; together "
                    f"at most {MAX_BYTES} are allowed"
                )
                return ()
            if tool.name in tools:
                raise ValueError(f"there is a tool {tool.name!r} already; names must differ")
            tools[tool.name] = tool
        except ValueError as fault:
            faults.append(f"tools[{at}]: {fault}")
    return tuple(tools.values())


def parse_tool_choice(given: object, tools: object, faults: list[str]) -> str:
    """
    Check the option `tool_choice`.

    Args:
        tools: The option `tools` as it was given: a tool at fault has a name all the same.
    """
    if given is None:
        return "auto"
    listed = tools if isinstance(tools, (list, tuple)) else ()
    names = [each["name"] for each in listed if isinstance(each, Mapping) and "name" in each]
    names = [name for name in names if isinstance(name, str) and NAME.fullmatch(name)]
    known = [*CHOICES, *names]
    if not tools:
        faults.append("tool_choice needs tools; leave it out, or give tools")
    elif not isinstance(given, str) or given not in known:
        shown = repr(given[:64]) if isinstance(given, str) else f"a {type(given).__name__}"
        near = nearest(given, known) if isinstance(given, str) else ""
        faults.append(f"tool_choice is {shown}; it must be one of {', '.join(known)}{near}")
    return given if isinstance(given, str) else "auto"


def _tool(item: object) -> Tool:
    """
    Check one tool.

    Raises:
        ValueError: It does not fit.
    """
    if not isinstance(item, Mapping):
        raise ValueError(f"it is a {type(item).__name__}; a tool has name, description, parameters")
    if kind := server_tool(item):
        raise ValueError(
            f"{kind[:40]!r} is a tool that one vendor runs itself, and the others of a chain do "
            f"not have it; give a function: name, description, parameters"
        )
    if unknown := sorted(str(key)[:40] for key in item.keys() - _KEYS)[:MAX_TOLD]:
        raise ValueError(f"unknown keys {unknown}; a tool has name, description, parameters")
    name, description = item.get("name"), item.get("description") or ""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"it has no valid name; allowed is {NAME.pattern}")
    if name in CHOICES:
        raise ValueError(f"{name!r} cannot be a tool's name; tool_choice means another thing by it")
    if not isinstance(description, str):
        raise ValueError(f"its description is a {type(description).__name__}; it must be a string")
    as_json_object({"description": description})
    return Tool(name, description, _parameters(item.get("parameters")))


def _parameters(given: object) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, type):
        raise ValueError("its parameters are a class; give its JSON Schema (model_json_schema())")
    try:
        schema = as_json_object(given)
    except ValueError as error:
        raise ValueError(f"its parameters: it {error}") from None
    if schema and schema.get("type") != "object":
        raise ValueError("its parameters must be the schema of an object: {'type': 'object', …}")
    if fault := schema_fault(schema):
        raise ValueError(f"its parameters are no JSON Schema: {fault}")
    return schema

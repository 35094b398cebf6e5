"""The options `tools` and `tool_choice`: functions that a model may ask the caller to run."""

import json
import re
from collections.abc import Mapping

from breakwater.calls.schema import as_json_object, schema_fault
from breakwater.calls.server_tools import server_tool
from breakwater.content import JsonObject, Tool
from breakwater.errors import nearest

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Names that all vendors accept."""
CHOICES = ("auto", "none", "required")
MAX_TOOLS = 512
"""OpenAI accepts 128."""
MAX_BYTES = 1024 * 1024
"""Limit for the parameters of all tools together, as JSON."""
MAX_NAMED = 10
"""A message names this many unknown keys of a tool."""
_KEYS = {"name", "description", "parameters"}


def parse_tools(value: object, faults: list[str]) -> tuple[Tool, ...]:
    """Check the option `tools`; append each fault to `faults`."""
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        faults.append(f"tools is a {type(value).__name__}; it must be a list of tools")
        return ()
    if len(value) > MAX_TOOLS:
        faults.append(f"tools has {len(value)} tools; at most {MAX_TOOLS} are allowed")
        return ()
    tools: dict[str, Tool] = {}
    size = 0
    for at, item in enumerate(value):
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


def parse_tool_choice(value: object, tools: object, faults: list[str]) -> str:
    """
    Check the option `tool_choice`.

    Args:
        tools: The option `tools` as the caller passed it: a faulty tool still has a name.
    """
    if value is None:
        return "auto"
    listed = tools if isinstance(tools, (list, tuple)) else ()
    names = [each["name"] for each in listed if isinstance(each, Mapping) and "name" in each]
    names = [name for name in names if isinstance(name, str) and NAME.fullmatch(name)]
    known = [*CHOICES, *names]
    if not tools:
        faults.append("tool_choice needs tools; leave it out, or give tools")
    if not isinstance(value, str):
        if tools:
            kind = type(value).__name__
            faults.append(f"tool_choice is a {kind}; it must be one of {', '.join(known)}")
        return "auto"
    if tools and value not in known:
        hint = f"{', '.join(known)}{nearest(value, known)}"
        faults.append(f"tool_choice is {value[:64]!r}; it must be one of {hint}")
    return value


def _tool(item: object) -> Tool:
    """
    Check one tool.

    Raises:
        ValueError: The tool does not fit; the message says why.
    """
    if not isinstance(item, Mapping):
        raise ValueError(f"it is a {type(item).__name__}; a tool has name, description, parameters")
    if kind := server_tool(item):
        raise ValueError(
            f"{kind[:40]!r} is a tool that one vendor runs itself; the other vendors of a chain "
            f"do not have it; give a function: name, description, parameters"
        )
    if unknown := sorted(str(key)[:40] for key in item.keys() - _KEYS)[:MAX_NAMED]:
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


def _parameters(value: object) -> JsonObject:
    if value is None:
        return {}
    if isinstance(value, type):
        raise ValueError("its parameters are a class; give its JSON Schema (model_json_schema())")
    try:
        schema = as_json_object(value)
    except ValueError as error:
        raise ValueError(f"its parameters: it {error}") from None
    if schema and schema.get("type") != "object":
        raise ValueError("its parameters must be the schema of an object: {'type': 'object', …}")
    if fault := schema_fault(schema):
        raise ValueError(f"its parameters are not a valid JSON Schema: {fault}")
    return schema

"""The answer of a healthy label: text, an instance of the requested schema, or tool calls."""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from simulator.instances import instance
from simulator.labels import Label, Settings
from simulator.wires.answer import FINISHES, Answer, Call, Usage
from simulator.wires.asked import Asked, Tool
from simulator.wires.base import Rejected, Wire

REFUSAL = "I can't help with that."
A_TOOL = "the tool"
"""Words of a user's text that ask for the first tool, whatever its name."""


def answer_of(label: Label, wire: Wire, fault: str | None, asked: Asked, seq: int) -> Answer:
    """
    Compose an answer.

    Args:
        label: The simulated provider that answers.
        wire: The vendor whose rules count cached tokens.
        fault: The kind of fault that struck; some kinds only change how an answer ends.
        asked: The request.
        seq: The call's number, from which ids are made.

    Raises:
        Rejected: If the schema has no instance.
    """
    settings = label.settings
    finish = fault if fault in FINISHES else settings.finish
    finish = "content_filter" if fault == "content_filtered" else finish
    wanted = _wanted(settings, asked) if finish == "stop" else ()
    if finish == "tool_calls":
        wanted = _wanted(settings, asked) or _first(asked)
    calls = tuple(
        Call(f"{seq:018d}{at:06d}", name, arguments) for at, (name, arguments) in enumerate(wanted)
    )
    silent = fault == "no_text" or finish == "content_filter"
    text = "" if silent else _text(label, asked, finish, calls=bool(calls))
    usage = _usage(label, wire, asked, text + "".join(c.json for c in calls))
    ends = "tool_calls" if calls else finish
    return Answer(seq, int(time.time()), asked, text, ends, usage, calls)


def _text(label: Label, asked: Asked, finish: str, *, calls: bool) -> str:
    settings = label.settings
    said = settings.answer if calls else label.next_text()
    if said is not None:
        return asked.text if said == "echo" else said
    if finish == "refusal":
        return REFUSAL
    if calls:
        return ""
    if asked.schema is not None:
        return json.dumps(_instance(asked.schema, asked.text), separators=(",", ":"))
    digest = hashlib.sha256(asked.text.encode()).hexdigest()[:8]
    return f"[{label.name}] answer to {digest}"


def _wanted(settings: Settings, asked: Asked) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Return names and arguments of the tools to call; empty after a tool's result."""
    if asked.tool_choice == "none" or asked.turns[-1].results:
        return ()
    if settings.tool_calls:
        return tuple((call["name"], call.get("arguments", {})) for call in settings.tool_calls)
    tool = _chosen(asked)
    return ((tool.name, _instance(tool.schema, asked.text)),) if tool else ()


def _chosen(asked: Asked) -> Tool | None:
    """Return the tool to call, by the request's tool choice or by the user's text."""
    named = {tool.name: tool for tool in asked.tools}
    if not named:
        return None
    if asked.tool_choice in named:
        return named[asked.tool_choice]
    said = next((tool for name, tool in named.items() if name in asked.text), None)
    if said or asked.tool_choice == "required" or A_TOOL in asked.text:
        return said or asked.tools[0]
    return None


def _first(asked: Asked) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    tool = asked.tools[0] if asked.tools else Tool("tool", {})
    return ((tool.name, _instance(tool.schema or {"type": "object"}, asked.text)),)


def _instance(schema: Mapping[str, Any], text: str) -> Any:
    try:
        return instance(schema or {"type": "object"}, text)
    except ValueError as error:
        raise Rejected("invalid", f"Invalid schema: {error}") from error


def _usage(label: Label, wire: Wire, asked: Asked, said: str) -> Usage:
    """Estimate four characters for each token; counts of the settings come first."""
    given = label.settings.usage
    cached, written = asked.held_tokens, 0
    if label.settings.prompt_cache and not cached:
        cached, written = label.prefixes.read(asked.prefix, label.settings.prompt_cache_min_tokens)
        written = written if wire.marks_cache else 0
    set_apart = given.get("cached_input_tokens", 0) + given.get("cache_write_tokens", 0)
    estimated = {
        "input_tokens": max(asked.size // 4 + 1, cached + written + 1) + set_apart,
        "output_tokens": len(said) // 4 + 1 + given.get("reasoning_tokens", 0),
        "cached_input_tokens": cached,
        "cache_write_tokens": written,
    }
    return Usage(**{**estimated, **given})

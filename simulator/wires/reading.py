"""Checks that the readers of all wires share: shapes, texts, media, and the order of turns."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from simulator.wires.asked import Tool, Turn
from simulator.wires.base import Rejected

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def objects(value: object, where: str) -> list[dict[str, Any]]:
    """
    Return a list of objects; None is an empty one.

    Raises:
        Rejected: It is something else.
    """
    items = [] if value is None else value
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Rejected("invalid", f"{where}: each entry must be an object")
    return items


def messages(value: object, where: str) -> list[dict[str, Any]]:
    """
    Return the conversation.

    Raises:
        Rejected: There is no message, or something other than messages.
    """
    if not isinstance(value, list) or not value:
        raise Rejected("invalid", f"{where}: at least one message is required")
    return objects(value, where)


def inner(value: object) -> dict[str, Any]:
    """Return the value if it is an object, else an empty object."""
    return value if isinstance(value, dict) else {}


def text_of(content: object) -> str:
    """Join the text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def size_of(value: object) -> int:
    """Count the characters of parts that are not text: tools, schemas, system blocks."""
    return len(json.dumps(value)) if value else 0


def check_base64(data: object, where: str) -> None:
    """
    Refuse data that is not base64; Google's SDK writes the URL-safe alphabet.

    Raises:
        Rejected: Naming the place.
    """
    try:
        if not isinstance(data, str) or not data:
            raise ValueError
        base64.b64decode(data.translate({45: "+", 95: "/"}), validate=True)
    except (ValueError, binascii.Error):
        raise Rejected("invalid", f"{where}: invalid base64 data") from None


def check_url(url: object, where: str) -> None:
    """
    Refuse a text that is not a web address.

    Raises:
        Rejected: Naming the place.
    """
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise Rejected("invalid", f"{where}: expected a valid URL")


def check_data_url(url: object, where: str, types: Sequence[str] = ()) -> None:
    """
    Refuse a text that is not a base64 data URL, of one of these media types if there are any.

    Raises:
        Rejected: Naming the place.
    """
    head, comma, body = str(url).partition(";base64,")
    kind = head.removeprefix("data:")
    if kind == head or not comma or "/" not in kind:
        raise Rejected(
            "invalid", f"Invalid '{where}'. Expected a base64-encoded data URL with a MIME type "
            "(e.g. 'data:application/pdf;base64,aW1nIGJ5dGVzIGhlcmU=').",
        )  # fmt: skip
    if types and kind not in types:
        raise Rejected("invalid", f"Invalid '{where}': unsupported MIME type '{kind}'.")
    check_base64(body, where)


def tool(name: object, schema: object, where: str) -> Tool:
    """
    Return one tool offered.

    Raises:
        Rejected: It has no name, or its arguments are not an object.
    """
    if not isinstance(name, str) or not name:
        raise Rejected("invalid", f"{where}.name: Field required")
    if schema is not None and inner(schema).get("type") != "object":
        raise Rejected(
            "invalid", f"Invalid schema for function '{name}': schema must be a JSON Schema of "
            f"'type: \"object\"', got 'type: \"{inner(schema).get('type')}\"'.",
        )  # fmt: skip
    return Tool(name, inner(schema))


def check_choice(choice: str | None, tools: Sequence[Tool]) -> None:
    """
    Refuse a choice of a tool that is not offered.

    Raises:
        Rejected: There is none, or none of that name.
    """
    if choice is None:
        return
    if not tools:
        raise Rejected("invalid", "tool_choice: is only allowed when tools are specified")
    if choice not in ("auto", "none", "required", *(tool.name for tool in tools)):
        raise Rejected("invalid", f"tool_choice: tool '{choice}' not found in provided tools")


def check_next(turns: Sequence[Turn], unknown: str, missing: str) -> None:
    """
    Require that exactly the results of a turn's calls come right after it.

    Args:
        turns: The conversation.
        unknown: The vendor's words for a result without its call: `{at}`, `{ids}`.
        missing: The vendor's words for a call without its result.

    Raises:
        Rejected: In these words.
    """
    before: tuple[str, ...] = ()
    for at, turn in enumerate([*turns, Turn("end")]):
        if strange := [each for each in turn.results if each not in before]:
            raise Rejected("invalid", unknown.format(at=at, ids=", ".join(strange)))
        if lost := [each for each in before if each not in turn.results]:
            raise Rejected("invalid", missing.format(at=at - 1, ids=", ".join(lost)))
        before = turn.calls

"""
Read a request to Google's generateContent, and refuse what Google refuses.

Source: the types of the google-genai SDK 3.4, the vendor's pages on function calling, thought
signatures and caching, and messages quoted in public issues (signature:
nanbingxyz/5ire#405, cached content: langchain-ai/langchain-google#978).
"""

import re
from itertools import pairwise
from typing import Any

from simulator.connection import Request
from simulator.wires.asked import Asked, Params, Tool, Turn
from simulator.wires.base import Rejected
from simulator.wires.reading import (
    check_base64,
    check_choice,
    check_next,
    check_url,
    inner,
    messages,
    objects,
    size_of,
    text_of,
    tool,
)

CHOICES = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto"}
AS_SENT = ("args", "response", "parameters", "parametersJsonSchema", "responseJsonSchema")
"""Fields whose content is the caller's own."""
NOT_NEXT = (
    "Please ensure that function response turn comes immediately after a function call turn. "
    "(contents[{at}]: {ids})"
)
NOT_ALL = (
    "Please ensure that the number of function response parts is equal to the number of function "
    "call parts of the function call turn."
)
NO_SIGNATURE = (
    "Function call is missing a thought_signature in functionCall parts. This is required for "
    "tools to work correctly, and missing thought_signature may lead to degraded model "
    "performance. Additional data, function call `default_api:{name}` , position {at}. Please "
    "refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more details."
)
JSON_TYPE = "application/json"


def read(request: Request, body: dict[str, Any]) -> Asked:
    """
    Read a generateContent request; the model and the method stand in the path.

    Raises:
        Rejected: Google would refuse it.
    """
    body = camel(body)
    model, _, method = request.path.rpartition("/")[2].partition(":")
    turns = tuple(
        _turn(content, at) for at, content in enumerate(messages(body.get("contents"), "contents"))
    )
    _check_calls(turns)
    offered = objects(body.get("tools"), "tools")
    tools = tuple(
        tool(each.get("name"), each.get("parametersJsonSchema"), "function_declarations")
        for group in offered
        for each in objects(group.get("functionDeclarations"), "function_declarations")
    )
    config = inner(body.get("generationConfig"))
    system = text_of(inner(body.get("systemInstruction")).get("parts"))
    text = sum(len(turn.text) for turn in turns) + len(system)
    prefix = (([offered, system], True),) if offered or system else ()
    return Asked(
        model, text + size_of(offered), method == "streamGenerateContent", turns, tools,
        _choice(body, tools), _schema(config), None, _params(config),
        str(body.get("cachedContent") or "") or False, prefix,
    )  # fmt: skip


def camel(value: Any) -> Any:
    """Return all names in camel case: Google accepts both, and its SDK sends a mixture."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    named = {re.sub("_([a-z])", lambda m: m[1].upper(), name): each for name, each in value.items()}
    return {name: each if name in AS_SENT else camel(each) for name, each in named.items()}


def _turn(content: dict[str, Any], at: int) -> Turn:
    parts = objects(content.get("parts"), f"contents[{at}].parts")
    if not parts:
        raise Rejected("invalid", f"contents[{at}].parts: must not be empty.")
    kinds = [_check_part(part, f"contents[{at}].parts") for part in parts]
    calls = tuple(str(part["functionCall"].get("name")) for part in parts if "functionCall" in part)
    results = tuple(
        str(part["functionResponse"].get("name")) for part in parts if "functionResponse" in part
    )
    if calls:
        _check_signature(parts, at)
    role = "assistant" if content.get("role") == "model" else "tool" if results else "user"
    said = [part for part in parts if not part.get("thought")]
    images, documents = kinds.count("image"), kinds.count("document")
    return Turn(role, text_of(said), images, documents, calls, results)


def _check_calls(turns: tuple[Turn, ...]) -> None:
    check_next(turns, NOT_NEXT, NOT_NEXT)
    for before, after in pairwise(turns):
        if before.calls and sorted(before.calls) != sorted(after.results):
            raise Rejected("invalid", NOT_ALL)


def _check_signature(parts: list[dict[str, Any]], at: int) -> None:
    """Require the signature of a turn's first call, as Gemini 3 does; other models need none."""
    first = next(part for part in parts if "functionCall" in part)
    if not first.get("thoughtSignature"):
        name = first["functionCall"].get("name")
        raise Rejected("invalid", NO_SIGNATURE.format(name=name, at=at + 1))
    # The documented dummy, skip_thought_signature_validator, is base64 as it stands.
    check_base64(first["thoughtSignature"], "thought_signature")


def _check_part(part: dict[str, Any], where: str) -> str:
    """Return the kind of media of a part; empty if it is not media."""
    for name in ("functionCall", "functionResponse", "inlineData", "fileData"):
        if name in part and not isinstance(part[name], dict):
            raise Rejected("invalid", f"Invalid value at '{where}.{name}'")
    if not isinstance(inner(part.get("functionResponse", {"response": {}})).get("response"), dict):
        raise Rejected("invalid", f"Invalid value at '{where}.function_response.response' (Struct)")
    if "inlineData" in part:
        blob = part["inlineData"]
        check_base64(blob.get("data"), f"{where}.inline_data.data")
        if "/" not in str(blob.get("mimeType")):
            raise Rejected("invalid", f"{where}.inline_data.mime_type: must be set")
        return _kind_of(blob)
    if "fileData" in part:
        check_url(part["fileData"].get("fileUri"), f"{where}.file_data.file_uri")
        return _kind_of(part["fileData"])
    return ""


def _kind_of(data: dict[str, Any]) -> str:
    return "image" if str(data.get("mimeType")).startswith("image/") else "document"


def _choice(body: dict[str, Any], tools: tuple[Tool, ...]) -> str | None:
    said = inner(inner(body.get("toolConfig")).get("functionCallingConfig"))
    choice, allowed = (
        CHOICES.get(str(said.get("mode", "")).upper()),
        said.get("allowedFunctionNames"),
    )
    if allowed and choice != "required":
        raise Rejected("invalid", "Please set allowed_function_names only when mode is ANY.")
    if choice == "required" and allowed and len(allowed) == 1:
        choice = str(allowed[0])
    check_choice(choice, tools)
    return choice


def _schema(config: dict[str, Any]) -> dict[str, Any] | None:
    schema = config.get("responseJsonSchema")
    if schema is None:
        return None
    if config.get("responseMimeType") != JSON_TYPE:
        raise Rejected(
            "invalid", "Response schema is only supported with response mime type "
            f"'{JSON_TYPE}'.",
        )  # fmt: skip
    if not isinstance(schema, dict):
        raise Rejected("invalid", "Invalid value at 'generation_config.response_json_schema'")
    return schema


def _params(config: dict[str, Any]) -> Params:
    thinking = inner(config.get("thinkingConfig"))
    return Params(
        thinking.get("thinkingLevel", thinking.get("thinkingBudget")),
        config.get("stopSequences"), config.get("seed"), config.get("temperature"),
        config.get("maxOutputTokens"),
    )  # fmt: skip

"""
Tools that a vendor runs itself, such as a web search: told from functions, so as to be refused.

A chain goes on to other vendors, which do not have them; and taken for a function, such a tool is
an empty one that the model may call and nobody runs.

Sources: the tool lists of Anthropic's, OpenAI's and Gemini's API references, and their SDKs' types.
"""

from collections.abc import Mapping

FUNCTIONS = frozenset({
    "function", "object", "array", "string", "number", "integer", "boolean", "null"
})  # fmt: skip
"""Types that are no vendor's tool: OpenAI's form of a function, and those of JSON Schema."""
_GOOGLE = frozenset({
    "googlesearch", "googlesearchretrieval", "googlemaps", "codeexecution", "urlcontext",
    "filesearch", "retrieval", "computeruse", "enterprisewebsearch", "mcpservers",
    "parallelaisearch", "exaaisearch",
})  # fmt: skip
"""Gemini's tools are keys, written in snake or in camel case."""


def server_tool(tool: object) -> str | None:
    """
    Return the name of a tool that its vendor runs itself; None for anything else.

    Args:
        tool: In the form of any vendor.
    """
    if not isinstance(tool, Mapping):
        return None
    kind = tool.get("type")
    if isinstance(kind, str) and kind not in FUNCTIONS:
        # Anthropic writes its functions so, too; OpenAI's custom tools have a grammar instead.
        return None if kind == "custom" and "input_schema" in tool else kind
    for key in tool:
        if isinstance(key, str) and key.replace("_", "").lower() in _GOOGLE:
            return key
    return None

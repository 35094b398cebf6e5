"""
Recognise tools that a vendor runs itself, such as a web search, so that calls can refuse them.

A chain may continue with other vendors, which do not have these tools. If such a tool were taken
for a function, the model could call a function without parameters that nobody runs.

Sources: the tool lists of Anthropic's, OpenAI's and Gemini's API references, and their SDKs' types.
"""

from collections.abc import Mapping

FUNCTIONS = frozenset({
    "function", "object", "array", "string", "number", "integer", "boolean", "null"
})  # fmt: skip
"""Types that never name a vendor's tool: OpenAI's for a function, and those of JSON Schema."""
_GOOGLE = frozenset({
    "googlesearch", "googlesearchretrieval", "googlemaps", "codeexecution", "urlcontext",
    "filesearch", "retrieval", "computeruse", "enterprisewebsearch", "mcpservers",
    "parallelaisearch", "exaaisearch",
})  # fmt: skip
"""Gemini names a tool by a key, in snake case or camel case."""


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
        # Anthropic's functions are of this type too; OpenAI's custom tools have a grammar instead.
        if kind == "custom" and "input_schema" in tool:
            return None
        return kind
    for key in tool:
        if isinstance(key, str) and key.replace("_", "").lower() in _GOOGLE:
            return key
    return None

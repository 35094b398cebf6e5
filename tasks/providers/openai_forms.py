"""The parts that OpenAI's two APIs share: client, tools, schemas, counts, a cached prompt's key."""

import json
from collections.abc import Mapping
from hashlib import sha256

import httpx2
import openai

from breakwater.attempt import UNCOUNTED, Usage
from breakwater.content import Tool
from tasks.providers.adapter import instructions, parameters
from tasks.providers.base import Request
from tasks.providers.json_values import JsonBody
from tasks.providers.schemas import rooted, strict
from tasks.providers.usage import openai_usage

SCHEMA_NAME = "answer"
"""The name of a response's schema; the API insists on one."""


class OpenAI(openai.OpenAI):
    """
    The SDK's client; it builds the URL of each path once, which else costs a call 80 us.

    The SDK sends the class's name as the user agent.
    """

    def _prepare_url(self, url: str) -> httpx2.URL:
        urls: dict[str, httpx2.URL] = self.__dict__.setdefault("_urls", {})
        if url not in urls:
            urls[url] = super()._prepare_url(url)
        return urls[url]


def read_usage(used: object) -> Usage:
    """Read the `usage` of an answer of either API; the counts of anything else are unknown."""
    if not isinstance(used, dict):
        return UNCOUNTED
    usage = openai_usage(used)
    if usage.input_tokens is usage.output_tokens is None:
        return UNCOUNTED
    return usage


def tool_definition(tool: Tool) -> JsonBody:
    """
    Return a tool as a request describes it.

    `strict` is always set: Responses defaults to true, and refuses a schema that does not fit.
    """
    whole = parameters(tool)
    strict_form = strict(whole)
    definition: JsonBody = {"name": tool.name, "parameters": strict_form or whole}
    definition["strict"] = strict_form is not None
    if tool.description:
        definition["description"] = tool.description
    return definition


def tool_choice(ours: str, named: JsonBody) -> str | JsonBody:
    """
    Return which tool the model must call, as a request states it.

    Args:
        ours: `none`, `required`, or the name of a tool.
        named: The request's form for the name of a tool.
    """
    if ours in {"none", "required"}:
        return ours
    return named


def json_schema(schema: Mapping[str, object]) -> JsonBody:
    """Return the shape of the answer, strict where strict mode can express it."""
    whole = rooted(schema)
    strict_form = strict(whole)
    return {
        "name": SCHEMA_NAME, "schema": strict_form or whole, "strict": strict_form is not None
    }  # fmt: skip


def cache_key(request: Request) -> str | None:
    """
    Return the same key for the same stable prefix, so that its calls meet one cache.

    Returns:
        A digest; None without a stable prefix: one key for all would crowd a single machine.
    """
    tools = [(tool.name, tool.description, dict(tool.parameters)) for tool in request.tools]
    system = instructions(request)
    if not (system or tools):
        return None
    prefix = json.dumps([request.model, system, tools], sort_keys=True, default=str)
    return sha256(prefix.encode()).hexdigest()[:32]

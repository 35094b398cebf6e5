"""What OpenAI's two APIs have alike: tools, schemas, counts, a cached prompt's key."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import httpx2
import openai

from breakwater.attempt import UNCOUNTED, Usage
from breakwater.content import Tool
from tasks.providers.adapter import instructions, parameters
from tasks.providers.base import Request
from tasks.providers.schemas import rooted, strict
from tasks.providers.usage import openai_usage


class Client(openai.OpenAI):
    """The SDK's client; it builds the URL of each path once, which else costs a call 80 us."""

    def _prepare_url(self, url: str) -> httpx2.URL:
        urls: dict[str, httpx2.URL] = self.__dict__.setdefault("_urls", {})
        if url not in urls:
            urls[url] = super()._prepare_url(url)
        return urls[url]


SCHEMA_NAME = "answer"
"""Of a response's schema; the API insists on one."""


def read_usage(used: object) -> Usage:
    """Read the `usage` of an answer of either API; whatever else it is, nothing is known."""
    if not isinstance(used, Mapping):
        return UNCOUNTED
    usage = openai_usage(used)
    return UNCOUNTED if usage.input_tokens is usage.output_tokens is None else usage


def tool_definition(tool: Tool) -> dict[str, Any]:
    """
    Describe a tool.

    `strict` is always said: Responses takes it for true, and refuses what does not fit.
    """
    whole = parameters(tool)
    strict_form = strict(whole)
    definition = {
        "name": tool.name,
        "parameters": strict_form or whole,
        "strict": strict_form is not None,
    }
    return {**definition, "description": tool.description} if tool.description else definition


def tool_choice(choice_name: str, named: dict[str, Any]) -> str | dict[str, Any]:
    """Say which tool to call; `named` is the form for one of them."""
    return choice_name if choice_name in {"none", "required"} else named


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the shape of the answer, strictly where strict mode can say it."""
    whole = rooted(schema)
    strict_form = strict(whole)
    return {"name": SCHEMA_NAME, "schema": strict_form or whole, "strict": strict_form is not None}


def cache_key(request: Request) -> str | None:
    """
    Return the same key for the same stable prefix, so that its calls meet one cache.

    Returns:
        A digest; None where nothing is stable: one key for all would crowd a single machine.
    """
    tools = [(tool.name, tool.description, dict(tool.parameters)) for tool in request.tools]
    system = instructions(request)
    if not (system or tools):
        return None
    prefix = json.dumps([request.model, system, tools], sort_keys=True, default=str)
    return sha256(prefix.encode()).hexdigest()[:32]

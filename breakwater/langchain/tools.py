"""Translate tools, tool choices and schemas from LangChain's many forms to ours."""

from collections.abc import Sequence
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from breakwater.calls.server_tools import server_tool
from breakwater.content import JsonObject
from breakwater.errors import InvalidOption
from breakwater.langchain.answers import PARSED

CHOICES = {"any": "required", True: "required", False: "none"}
"""Choices of LangChain and its integrations that have another name here."""
Foreign = Any
"""A tool, a choice or a schema in any of the forms that LangChain accepts."""


def tool_of(tool: Foreign) -> JsonObject:
    """
    Translate a tool: a function, a BaseTool, a pydantic class, a TypedDict, a JSON Schema.

    Raises:
        InvalidOption: It is not a valid tool, or one that a vendor runs itself, as a web search.
    """
    if isinstance(tool, BaseModel) and not isinstance(tool, BaseTool):  # Google's `types.Tool`
        tool = tool.model_dump(exclude_none=True)
    if kind := server_tool(tool):
        raise InvalidOption(
            f"a tool of type {kind[:40]!r} is run by one vendor, and the other vendors of a chain "
            f"do not have it; a tool is a function with a name and parameters"
        )
    try:
        function = convert_to_openai_tool(tool).get("function")
    except ValueError:  # LangChain's error quotes the whole tool
        function = None
    if not isinstance(function, dict):
        shown = type(tool).__name__
        if isinstance(tool, dict) and tool:
            shown = f"{shown} {sorted(str(key)[:40] for key in tool)[:8]}"
        raise InvalidOption(
            f"a {shown} is not a valid tool; a tool is a function with a name "
            f"and parameters, in the form of OpenAI or Anthropic"
        )
    names = ("name", "description", "parameters")
    return {name: function[name] for name in names if function.get(name)}


def choice_of(choice: Foreign, tools: Sequence[JsonObject]) -> str | None:
    """
    Translate a tool choice; None stays None.

    Raises:
        InvalidOption: It does not name one of these tools.
    """
    if choice is None:
        return None
    if isinstance(choice, dict):  # OpenAI's and Anthropic's own forms
        choice = (choice.get("function") or choice).get("name") or choice.get("type")
    choice = CHOICES.get(choice, choice)
    known = ["auto", "none", "required", *(tool["name"] for tool in tools)]
    if choice not in known:
        raise InvalidOption(f"tool_choice {str(choice)[:64]!r} is not one of {', '.join(known)}")
    return str(choice)


def schema_of(schema: Foreign) -> JsonObject:
    """Translate the schema of an answer: a pydantic class, a TypedDict, a JSON Schema."""
    if isinstance(schema, dict) and not {"title", "name"} & schema.keys():
        return schema  # LangChain's conversion requires a name; we do not
    return convert_to_json_schema(schema)


class Parser:
    """
    Get the value of an answer with a schema.

    Args:
        schema: The argument of `with_structured_output`; a pydantic class returns an instance.
    """

    def __init__(self, schema: Foreign) -> None:
        self._model = None
        if is_basemodel_subclass(schema):
            self._model = schema

    def __call__(self, message: AIMessage) -> Foreign:
        """
        Return the value; the worker has validated it.

        Raises:
            OutputParserException: The answer has no value: the model refused, or was cut off.
            pydantic.ValidationError: A custom validator of the class refuses the value.
        """
        if PARSED not in message.additional_kwargs:
            reason = message.response_metadata.get("finish_reason")
            raise OutputParserException(f"the answer has no data; its finish_reason is {reason!r}")
        value = message.additional_kwargs[PARSED]
        if self._model is None:
            return value
        parse = getattr(self._model, "model_validate", None) or self._model.parse_obj
        return parse(value)

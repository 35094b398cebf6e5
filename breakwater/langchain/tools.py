"""Tools, the choice among them, and schemas: LangChain's many forms as our one."""

from collections.abc import Sequence
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from breakwater.calls.server_tools import server_tool
from breakwater.errors import InvalidOption
from breakwater.langchain.answers import PARSED

CHOICES = {"any": "required", True: "required", False: "none"}
"""What LangChain and its integrations say for what we call otherwise."""


def tool_of(tool: Any) -> dict[str, Any]:
    """
    Translate a tool: a function, a BaseTool, a pydantic class, a TypedDict, a JSON Schema.

    Raises:
        InvalidOption: It is a tool that one vendor runs itself, such as a web search, or none.
    """
    if isinstance(tool, BaseModel) and not isinstance(tool, BaseTool):  # Google's `types.Tool`
        tool = tool.model_dump(exclude_none=True)
    if kind := server_tool(tool):
        raise InvalidOption(
            f"a tool of type {kind[:40]!r} is run by one vendor and unknown to the others of a "
            f"chain; a tool is a function with a name and parameters"
        )
    try:
        function = convert_to_openai_tool(tool).get("function")
    except ValueError:  # LangChain's error quotes the whole tool
        function = None
    if not isinstance(function, dict):
        shown = sorted(str(key)[:40] for key in tool)[:8] if isinstance(tool, dict) else ""
        raise InvalidOption(
            f"a {type(tool).__name__} {shown or ''} is no tool; a tool is a function with a name "
            f"and parameters, in the form of OpenAI or Anthropic"
        )
    names = ("name", "description", "parameters")
    return {name: function[name] for name in names if function.get(name)}


def choice_of(choice: Any, tools: Sequence[dict[str, Any]]) -> str | None:
    """
    Translate a tool choice; None where none was made.

    Raises:
        InvalidOption: It names no tool of these.
    """
    if choice is None:
        return None
    if isinstance(choice, dict):  # OpenAI's and Anthropic's own forms
        choice = (choice.get("function") or choice).get("name") or choice.get("type")
    choice = CHOICES.get(choice, choice)
    known = ["auto", "none", "required", *(tool["name"] for tool in tools)]
    if choice not in known:
        raise InvalidOption(f"tool_choice {str(choice)[:64]!r} is none of {', '.join(known)}")
    return str(choice)


def schema_of(schema: Any) -> dict[str, Any]:
    """Translate what an answer has to be: a pydantic class, a TypedDict, a JSON Schema."""
    if isinstance(schema, dict) and not {"title", "name"} & schema.keys():
        return schema  # LangChain wants a name for it, which we do not
    return convert_to_json_schema(schema)


class Parser:
    """
    Takes the value out of an answer that was asked for with a schema.

    Args:
        schema: What `with_structured_output` was given; a pydantic class makes an instance.
    """

    def __init__(self, schema: Any) -> None:
        self._model = schema if is_basemodel_subclass(schema) else None

    def __call__(self, message: AIMessage) -> Any:
        """
        Return the value; the worker has validated it.

        Raises:
            OutputParserException: There is none: the model refused, or was cut off.
            pydantic.ValidationError: A validator of the class's own does not take it.
        """
        if PARSED not in message.additional_kwargs:
            reason = message.response_metadata.get("finish_reason")
            raise OutputParserException(f"the answer has no data; its finish_reason is {reason!r}")
        value = message.additional_kwargs[PARSED]
        if self._model is None:
            return value
        parse = getattr(self._model, "model_validate", None) or self._model.parse_obj
        return parse(value)

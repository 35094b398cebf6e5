"""
The chat model: a role of the roles file behind LangChain's interface.

Every call is a task: it waits in Redis while nobody can serve it, goes to the next provider of the
role's chain when one fails, and is in the ledger like any other.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from operator import itemgetter
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field

from breakwater.asking.pending import PendingCompletion
from breakwater.errors import InvalidOption, nearest
from breakwater.langchain.answers import message_of
from breakwater.langchain.chunks import ChunkRelay
from breakwater.langchain.messages import prompt_of
from breakwater.langchain.tools import Parser, choice_of, schema_of, tool_of
from breakwater.result import Result

PARAMS = {"temperature": "temperature", "max_tokens": "max_output_tokens", "stop": "stop"}
"""LangChain's standard names for parameters of ours."""
PER_CALL = ("params", "task_metadata", "deadline_s", "timeout_s")
OPTIONS = (*PARAMS, *PER_CALL, "tools", "tool_choice", "schema")
"""What a call, or `bind`, may give by name."""
LANGCHAINS_OWN = {"stream"}
"""What LangChain itself puts among a call's options; it says nothing to us."""


class ChatBreakwater(BaseChatModel):
    """
    A role as a chat model.

    Needs what a producer needs: `REDIS_URL`, and the roles file if roles are to have their queues.
    Errors are those of `breakwater.errors`.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    role: str
    """Of the roles file; it says which models are asked."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Over the role's, in the roles file's words, such as `{"reasoning_effort": "low"}`."""
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    task_metadata: dict[str, Any] = Field(default_factory=dict)
    """Kept with the task, and in the ledger."""
    deadline_s: float | None = None
    """Seconds from enqueueing until the task gives up; None: the role's own."""
    timeout_s: float | None = Field(default=None, alias="timeout")
    """Seconds that are waited for an answer before the task is cancelled; None: for the task."""
    streaming: bool = False
    """Whether `invoke` streams, too, for callbacks that take each token."""
    on_restart: Literal["raise", "buffer"] = "raise"
    """What a stream does when another target answers anew after something was handed on."""

    @property
    def _llm_type(self) -> str:
        return "breakwater"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """All that changes an answer: LangChain's own caches know a model by it."""
        return {"role": self.role, "params": self._params({})}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params.setdefault("ls_model_name", self.role)
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _chat_result(self._pending(messages, stop, kwargs).answer())

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _chat_result(await self._pending(messages, stop, kwargs).answer_async())

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        handed = ChunkRelay(buffers=self.on_restart == "buffer")
        with closing(self._pending(messages, stop, kwargs).events()) as events:
            for event in events:
                yield from handed.chunks(event)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        handed = ChunkRelay(buffers=self.on_restart == "buffer")
        async with aclosing(self._pending(messages, stop, kwargs).events_async()) as events:
            async for event in events:
                for chunk in handed.chunks(event):
                    yield chunk

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """
        Offer tools to the model.

        Args:
            tools: Functions, BaseTools, pydantic classes, TypedDicts or JSON Schemas.
            tool_choice: `auto`, `none`, `any` (or `required`), the name of one, or the form in
                which OpenAI or Anthropic say so.
            strict: Taken and not needed: arguments are asked for by their schema in any case.

        Raises:
            InvalidOption: A tool is one vendor's own, or the choice names none of them.
        """
        ours = [tool_of(tool) for tool in tools]
        if (choice := choice_of(tool_choice, ours)) is not None:
            kwargs["tool_choice"] = choice
        return self.bind(tools=ours, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """
        Have answers that are instances of a schema.

        Args:
            schema: A pydantic class, a TypedDict, or a JSON Schema.
            include_raw: Give `{"raw", "parsed", "parsing_error"}` instead of the value.
            method: `json_schema` has the worker validate the answer, and ask again if it does not
                fit; `json_mode` is the same; `function_calling` has a tool called by force.
            strict: Taken and not needed: an answer is validated in any case.

        Raises:
            SchemaViolated: When it is used: no target of the chain gave an answer that fits.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        if kwargs:
            raise InvalidOption(f"with_structured_output does not take {', '.join(kwargs)}")
        said = {"kwargs": {"method": method}, "schema": schema}
        model = self.bind(schema=schema_of(schema), ls_structured_output_format=said)
        parser: Runnable[Any, Any] = RunnableLambda(Parser(schema).__call__)
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(
            parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
        )
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks(
            [failed], exception_key="parsing_error"
        )

    def _pending(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, given: Mapping[str, Any]
    ) -> PendingCompletion:
        """
        Put a call together: what it gives by name is nearer than what the model was made with.

        Raises:
            InvalidOption: There is no such option; nothing is enqueued.
            InvalidPrompt: A message holds what no prompt of ours has.
        """
        given = {k: v for k, v in given.items() if v is not None and k not in LANGCHAINS_OWN}
        for name in given:
            if name not in OPTIONS:
                hint = "; the role says which it is" if name == "model" else nearest(name, OPTIONS)
                raise InvalidOption(f"unknown option {name[:40]!r}{hint}")
        if stop is not None:
            given["stop"] = stop
        options: dict[str, Any] = {
            "params": self._params(given),
            "metadata": {**self.task_metadata, **given.get("task_metadata", {})},
            "deadline_s": given.get("deadline_s", self.deadline_s),
            **{name: given[name] for name in ("tools", "tool_choice", "schema") if name in given},
        }
        return PendingCompletion(
            self.role,
            prompt_of(messages),
            {name: value for name, value in options.items() if value not in ({}, None)},
            given.get("timeout_s", self.timeout_s),
        )

    def _params(self, given: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in PARAMS}
        near = {PARAMS[name]: given[name] for name in PARAMS if name in given}
        standard = {PARAMS[name]: value for name, value in own.items() if value is not None}
        return {**self.params, **standard, **given.get("params", {}), **near}


def _chat_result(result: Result) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message_of(result))])

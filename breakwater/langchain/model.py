"""
The chat model: a role of the roles file with LangChain's interface.

Each call is a task: it waits in Redis while no provider can serve it, it goes to the next provider
of the role's chain when one fails, and the ledger records it like any other.
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

Untyped = Any
"""A value of LangChain, which its callers define."""

PARAMS = {"temperature": "temperature", "max_tokens": "max_output_tokens", "stop": "stop"}
"""LangChain's standard names of our parameters."""
PER_CALL = ("params", "task_metadata", "deadline_s", "timeout_s")
OPTIONS = (*PARAMS, *PER_CALL, "tools", "tool_choice", "schema")
"""The keyword arguments of a call, or of `bind`."""
IGNORED = {"stream"}
"""Options that LangChain itself adds to a call; they have no meaning here."""


class ChatBreakwater(BaseChatModel):
    """
    A role as a chat model.

    It needs the settings of a producer: `REDIS_URL`, and the roles file if roles have their own
    queues. Its errors are those of `breakwater.errors`.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    role: str
    """A role of the roles file, which lists the models."""
    params: dict[str, Untyped] = Field(default_factory=dict)
    """Parameters that override the role's, such as `{"reasoning_effort": "low"}`."""
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    task_metadata: dict[str, Untyped] = Field(default_factory=dict)
    """Stored with the task, and in the ledger."""
    deadline_s: float | None = None
    """Seconds from enqueueing until the task fails; None: the role's own deadline."""
    timeout_s: float | None = Field(default=None, alias="timeout")
    """Seconds to wait for an answer before the task is cancelled; None: until its deadline."""
    streaming: bool = False
    """Whether `invoke` also streams, for callbacks that receive each token."""
    on_restart: Literal["raise", "buffer"] = "raise"
    """What a stream does when an answer restarts after a chunk was yielded."""

    @property
    def _llm_type(self) -> str:
        return "breakwater"

    @property
    def _identifying_params(self) -> Mapping[str, object]:
        """Everything that changes an answer; LangChain's caches use it as a key."""
        return {"role": self.role, "params": self._params({})}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Untyped) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params.setdefault("ls_model_name", self.role)
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Untyped,
    ) -> ChatResult:
        return _chat_result(self._pending(messages, stop, kwargs).answer())

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Untyped,
    ) -> ChatResult:
        return _chat_result(await self._pending(messages, stop, kwargs).answer_async())

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Untyped,
    ) -> Iterator[ChatGenerationChunk]:
        relay = ChunkRelay(buffers=self.on_restart == "buffer")
        with closing(self._pending(messages, stop, kwargs).events()) as events:
            for event in events:
                yield from relay.chunks(event)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Untyped,
    ) -> AsyncIterator[ChatGenerationChunk]:
        relay = ChunkRelay(buffers=self.on_restart == "buffer")
        async with aclosing(self._pending(messages, stop, kwargs).events_async()) as events:
            async for event in events:
                for chunk in relay.chunks(event):
                    yield chunk

    def bind_tools(
        self,
        tools: Sequence[dict[str, Untyped] | type | Callable[..., Untyped] | BaseTool],
        *,
        tool_choice: dict[str, Untyped] | str | bool | None = None,
        strict: bool | None = None,
        **kwargs: Untyped,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """
        Offer tools to the model.

        Args:
            tools: Functions, BaseTools, pydantic classes, TypedDicts or JSON Schemas.
            tool_choice: `auto`, `none`, `any` (or `required`), the name of a tool, or the form of
                OpenAI or Anthropic.
            strict: Accepted and ignored: arguments always follow their schema.

        Raises:
            InvalidOption: A tool belongs to one vendor, or the choice does not name a tool.
        """
        ours = [tool_of(tool) for tool in tools]
        if (choice := choice_of(tool_choice, ours)) is not None:
            kwargs["tool_choice"] = choice
        return self.bind(tools=ours, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Untyped] | type,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        strict: bool | None = None,
        **kwargs: Untyped,
    ) -> Runnable[LanguageModelInput, Untyped]:
        """
        Return a model whose answers are instances of a schema.

        Args:
            schema: A pydantic class, a TypedDict, or a JSON Schema.
            include_raw: Return `{"raw", "parsed", "parsing_error"}` instead of the value.
            method: With `json_schema`, the worker validates the answer, and asks again if it does
                not fit; `json_mode` is the same; `function_calling` forces a tool call.
            strict: Accepted and ignored: answers are always validated.

        Raises:
            SchemaViolated: On use: no target of the chain gave an answer that fits.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        if kwargs:
            raise InvalidOption(f"with_structured_output does not take {', '.join(kwargs)}")
        format_ = {"kwargs": {"method": method}, "schema": schema}
        model = self.bind(schema=schema_of(schema), ls_structured_output_format=format_)
        parser: Runnable[Untyped, Untyped] = RunnableLambda(Parser(schema).__call__)
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
        self, messages: Sequence[BaseMessage], stop: list[str] | None, chosen: Mapping[str, Untyped]
    ) -> PendingCompletion:
        """
        Build a call; its own arguments override those of the model.

        Raises:
            InvalidOption: An option does not exist; nothing is enqueued.
            InvalidPrompt: A message has a block that our prompts cannot hold.
        """
        chosen = {k: v for k, v in chosen.items() if v is not None and k not in IGNORED}
        for name in chosen:
            if name not in OPTIONS:
                hint = nearest(name, OPTIONS)
                if name == "model":
                    hint = "; the role determines it"
                raise InvalidOption(f"unknown option {name[:40]!r}{hint}")
        if stop is not None:
            chosen["stop"] = stop
        options: dict[str, Untyped] = {
            "params": self._params(chosen),
            "metadata": {**self.task_metadata, **chosen.get("task_metadata", {})},
            "deadline_s": chosen.get("deadline_s", self.deadline_s),
            **{name: chosen[name] for name in ("tools", "tool_choice", "schema") if name in chosen},
        }
        return PendingCompletion(
            self.role,
            prompt_of(messages),
            {name: value for name, value in options.items() if value not in ({}, None)},
            chosen.get("timeout_s", self.timeout_s),
        )

    def _params(self, chosen: Mapping[str, Untyped]) -> dict[str, Untyped]:
        own = {name: getattr(self, name) for name in PARAMS}
        near = {PARAMS[name]: chosen[name] for name in PARAMS if name in chosen}
        standard = {PARAMS[name]: value for name, value in own.items() if value is not None}
        return {**self.params, **standard, **chosen.get("params", {}), **near}


def _chat_result(result: Result) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message_of(result))])

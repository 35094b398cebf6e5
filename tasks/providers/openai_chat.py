"""
OpenAI's Chat Completions API, through `openai`: what every compatible server speaks.

vLLM, Ollama, llama.cpp, Azure, OpenRouter and OpenAI itself.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from tasks.config import ProviderSettings
from tasks.errors import TruncatedAnswer
from tasks.providers.adapter import (
    CHECK_S,
    IMAGES,
    Adapter,
    Answer,
    Called,
    asked,
    call_id,
    data_url,
    file_name,
    instructions,
    new_call_id,
    parameters,
)
from tasks.providers.base import Completion, Media, Message, Request, Tool, ToolCall
from tasks.providers.hearing import Hearing
from tasks.providers.openai_forms import (
    cache_key,
    choice,
    counted,
    function,
    json_schema,
)
from tasks.providers.schemas import is_object
from tasks.providers.vendor_errors import from_body

_DOCUMENTS = frozenset({"application/pdf"})


class OpenAIChatProvider(Adapter):
    """A model behind an OpenAI-compatible server."""

    BASE_URL = "https://api.openai.com/v1"
    TAKES: ClassVar = {
        "max_output_tokens": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "stop": "stop",
        "seed": "seed",
        "reasoning_effort": "reasoning_effort",
    }
    FINISH: ClassVar = {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "function_call": "tool_calls",
        "content_filter": "content_filter",
        "refusal": "refusal",
    }

    def _set_up(self, settings: ProviderSettings, key: str, http: httpx2.Client) -> None:
        host = httpx2.URL(self.base_url).host
        self._official = host.endswith((".openai.com", ".azure.com"))
        self._prompt_cache = settings.prompt_cache
        self._client = openai.OpenAI(
            api_key=key, base_url=self.base_url, max_retries=0, http_client=http,
            timeout=settings.timeout.total_s,
        )  # fmt: skip
        self._chat = self._client.chat.completions  # imported here, and not under the first call

    def _ask(self, request: Request) -> Answer:
        return asked(self._client, "/chat/completions", self._body(request), request.timeout_s)

    def _listen(self, request: Request, hearing: Hearing) -> Answer:
        body = self._body(request)
        body["stream_options"] = {"include_usage": True}  # else a stream is not counted
        with self._chat.create(**body, stream=True, timeout=request.timeout_s) as stream:
            told = _heard(stream, hearing)
            return Answer(told, stream.response.headers.get("x-request-id"))

    def _body(self, request: Request) -> dict[str, Any]:
        body = self._params(request.params)
        body["model"] = request.model
        if self._official:
            # The new name, which OpenAI's reasoning models insist on and others do not know.
            if "max_tokens" in body:
                body["max_completion_tokens"] = body.pop("max_tokens")
            body["store"] = False
            if self._prompt_cache and (key := cache_key(request)):
                body["prompt_cache_key"] = key
        body["messages"] = list(self._messages(request))
        if request.tools:
            body["tools"] = [self._tool(tool) for tool in request.tools]
            if request.tool_choice != "auto":
                named = {"type": "function", "function": {"name": request.tool_choice}}
                body["tool_choice"] = choice(request.tool_choice, named)
        if request.schema is not None:
            shape = json_schema(request.schema)
            if self._official and not is_object(shape["schema"]):
                self._refuse("it takes a schema of an object only")
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body

    def _tool(self, tool: Tool) -> dict[str, Any]:
        told = function(tool)
        if not self._official:  # others may not know the word, and take it for false
            told = {**told, "parameters": parameters(tool)}
            del told["strict"]
        return {"type": "function", "function": told}

    def _messages(self, request: Request) -> Iterator[dict[str, Any]]:
        if system := instructions(request):
            yield {"role": "system", "content": system}
        for message in request.messages:
            if message.role == "tool":
                id_ = call_id(message.tool_call_id)
                yield {"role": "tool", "tool_call_id": id_, "content": self._only_text(message)}
            elif message.role == "assistant":
                told: dict[str, Any] = {"role": "assistant", "content": self._only_text(message)}
                if message.tool_calls:
                    told["tool_calls"] = [_call(call) for call in message.tool_calls]
                yield told
            elif message.role == "user":
                yield {"role": "user", "content": self._content(message)}

    def _content(self, message: Message) -> str | list[dict[str, Any]]:
        if isinstance(message.content, str):
            return message.content
        return [
            {"type": "text", "text": part} if isinstance(part, str) else self._media(part)
            for part in message.parts
        ]

    def _media(self, media: Media) -> dict[str, Any]:
        if media.kind == "image":
            self._check(media, IMAGES, "PNG, JPEG, WebP and GIF")
            return {"type": "image_url", "image_url": {"url": media.url or data_url(media)}}
        if media.url is not None:
            self._refuse("Chat Completions takes no document by URL; send its bytes")
        self._check(media, _DOCUMENTS, "PDF")
        file = {"filename": file_name(media), "file_data": data_url(media)}
        return {"type": "file", "file": file}

    def _read(self, answer: Answer, request: Request) -> Completion:
        told = answer.told
        if isinstance(error := told.get("error"), dict):  # OpenRouter, with status 200
            status = error.get("code")
            raise from_body(
                self.name, {"error": error}, status if isinstance(status, int) else None
            )
        choice = told["choices"][0]
        message = choice["message"]
        return self._completion(
            text=message.get("content") or "",
            model=told["model"] or request.model,
            reason="refusal" if message.get("refusal") else choice["finish_reason"],
            usage=counted(told.get("usage")),
            request_id=answer.request_id or told["id"],
            response_id=told["id"],
            called=[
                Called(call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in message.get("tool_calls") or ()
                if "function" in call  # the other kind is a custom tool, never offered
            ],
        )

    def _models(self) -> Iterable[str]:
        return (model.id for model in self._client.models.list(timeout=CHECK_S))


def _call(call: ToolCall) -> dict[str, Any]:
    called = {"name": call.name, "arguments": json.dumps(dict(call.arguments))}
    return {"type": "function", "id": call_id(call.id), "function": called}


def _heard(stream: Iterable[ChatCompletionChunk], hearing: Hearing) -> dict[str, Any]:
    """Put the chunks together to what a plain call would have answered."""
    head: ChatCompletionChunk | None = None
    message: dict[str, Any] = {"role": "assistant", "content": "", "refusal": "", "tool_calls": []}
    reason = usage = None
    for chunk in hearing.events(stream):
        head = head or chunk
        usage = chunk.usage or usage
        for told in chunk.choices[:1]:  # none in the chunk that counts
            reason = told.finish_reason or reason
            _extend(message, told.delta, hearing)
            if reason:
                hearing.complete()
    if head is None:
        raise TruncatedAnswer("the stream ended before it began")
    choices = [{"index": 0, "message": message, "finish_reason": reason}]
    used = usage and usage.to_dict(warnings=False)
    return {"id": head.id, "model": head.model, "choices": choices, "usage": used}


def _extend(message: dict[str, Any], delta: Any, hearing: Hearing) -> None:
    message["content"] += delta.content or ""
    message["refusal"] += delta.refusal or ""
    hearing.text(delta.content)
    for piece in delta.tool_calls or ():
        calls = message["tool_calls"]
        if piece.index >= len(calls):
            piece.id = piece.id or new_call_id()
            called = {"name": "", "arguments": ""}
            calls.append({"id": piece.id, "type": "function", "function": called})
        call, told = calls[piece.index], piece.function
        call["function"]["name"] += told.name or ""
        call["function"]["arguments"] += told.arguments or ""
        hearing.call(piece.index, piece.id, told.name, told.arguments or "")
    if (
        delta.refusal or delta.model_extra
    ):  # vLLM, DeepSeek and OpenRouter put their reasoning there
        hearing.sign()

"""
OpenAI's Chat Completions API, through `openai`; compatible servers have the same API.

Among them are vLLM, Ollama, llama.cpp, Azure, OpenRouter and OpenAI itself.
"""

import json
from collections.abc import Iterable, Iterator
from typing import ClassVar

import httpx2
import openai

from breakwater.content import Media, Message, Tool, ToolCall
from breakwater.errors import (
    ContextWindowExceeded,
    GarbledAnswer,
    Overloaded,
    ProviderTimeout,
    ServerError,
    TruncatedAnswer,
)
from tasks.config import ProviderSettings
from tasks.providers.adapter import (
    CHECK_S,
    IMAGES,
    Adapter,
    RawAnswer,
    RawToolCall,
    data_url,
    file_name,
    instructions,
    non_empty,
    open_stream,
    parameters,
    post_json,
)
from tasks.providers.alternatives import Alternatives
from tasks.providers.base import Completion, Request
from tasks.providers.errors.bodies import is_error
from tasks.providers.json_values import JsonBody, JsonFields
from tasks.providers.openai_forms import (
    OpenAI,
    cache_key,
    json_schema,
    read_usage,
    tool_choice,
    tool_definition,
)
from tasks.providers.schemas import is_object
from tasks.providers.streams.chat_completions import (
    ChatStream,
    error_in,
    finish_reason_of,
    text_of,
    usage_of,
)
from tasks.providers.streams.relay import StreamRelay
from tasks.providers.streams.tool_calls import tool_call_pieces

_DOCUMENTS = frozenset({"application/pdf"})


class OpenAIChatProvider(Adapter):
    """A model behind an OpenAI-compatible server."""

    BASE_URL = "https://api.openai.com/v1"
    PARAM_PATHS: ClassVar = {
        "max_output_tokens": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "stop": "stop",
        "seed": "seed",
        "reasoning_effort": "reasoning_effort",
    }
    # OpenAI's five words, then those of other servers, from their references or as they send them.
    FINISH: ClassVar = {
        **dict.fromkeys(
            (
                "stop", "end_turn",  # xAI, Bedrock
                "eos", "eos_token", "stop_sequence",  # Together; Text Generation Inference; Cohere
                "complete", "completed", "normal",  # Cohere; gateways; Qianfan
            ),
            "stop",
        ),
        **dict.fromkeys(
            (
                "length", "max_tokens", "max_output_tokens",  # Gemini's and Azure's endpoints
                "model_length", "model_context_window_exceeded",  # Mistral; Zhipu, Bedrock
            ),
            "length",
        ),
        **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool_calls"),
        **dict.fromkeys(
            (
                "content_filter", "content_filtered", "guardrail_intervened",  # Bedrock
                "sensitive",  # Zhipu, Hunyuan
                "safety", "recitation", "blocklist", "prohibited_content", "spii",  # Gemini
                "error_toxic",  # Cohere
            ),
            "content_filter",
        ),
        "refusal": "refusal",
        # The upstream failed; OpenRouter, Mistral, Together, Fireworks. Zhipu; Cohere.
        **dict.fromkeys(("error", "network_error"), ServerError),
        "timeout": ProviderTimeout,
        **dict.fromkeys(("insufficient_system_resource", "overloaded"), Overloaded),  # DeepSeek
        # The engine gave up; vLLM, SGLang, Dynamo, DeepSeek. Cohere.
        **dict.fromkeys(
            ("abort", "aborted", "cancelled", "canceled", "user_cancel"), TruncatedAnswer
        ),
        "error_limit": ContextWindowExceeded,  # Cohere
        **dict.fromkeys(
            (
                "function_call_filter", "malformed_function_call",  # Gemini
                "malformed_model_output", "malformed_tool_use",  # Bedrock
                "repetition",  # vLLM: it repeats itself without end
            ),
            GarbledAnswer,
        ),
    }  # fmt: skip

    def _build_client(self, settings: ProviderSettings, key: str, http: httpx2.Client) -> None:
        host = httpx2.URL(self.base_url).host
        self._official = host.endswith((".openai.com", ".azure.com"))
        self._prompt_cache = settings.prompt_cache
        self._client = OpenAI(
            api_key=key, base_url=self.base_url, max_retries=0, http_client=http,
            timeout=settings.timeout.total_s,
        )  # fmt: skip
        self._chat = self._client.chat.completions  # imported here, and not under the first call

    def _call(self, request: Request) -> RawAnswer:
        return post_json(self._client, "/chat/completions", self._body(request), request.timeout_s)

    def _call_streaming(self, request: Request, relay: StreamRelay) -> RawAnswer:
        body = self._body(request)
        body["stream_options"] = {"include_usage": True}  # by default a stream has no counts
        with open_stream(
            self._client, openai.Stream[object], "/chat/completions", body, request.timeout_s
        ) as response:
            answer = ChatStream(relay, self._error_in_body, self._is_whole_reason).read(
                relay.objects(response.iter_bytes())
            )
            return RawAnswer(answer, response.headers.get("x-request-id"))

    def _body(self, request: Request) -> JsonBody:
        body = self._params(request.params)
        body["model"] = request.model
        if self._official:
            # The new name: OpenAI's reasoning models insist on it, other servers do not have it.
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
                body["tool_choice"] = tool_choice(request.tool_choice, named)
        if request.schema is not None:
            shape = json_schema(request.schema)
            if self._official and not is_object(shape["schema"]):
                self._refuse("it takes a schema of an object only")
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body

    def _tool(self, tool: Tool) -> JsonBody:
        definition = tool_definition(tool)
        if not self._official:  # others may not have `strict`, and default to false
            definition = {**definition, "parameters": parameters(tool)}
            del definition["strict"]
        return {"type": "function", "function": definition}

    def _messages(self, request: Request) -> Iterator[JsonBody]:
        if system := instructions(request):
            yield {"role": "system", "content": system}
        for message in request.messages:
            if message.role == "tool":
                id_ = message.tool_call_id
                yield {"role": "tool", "tool_call_id": id_, "content": self._only_text(message)}
            elif message.role == "assistant":
                turn: JsonBody = {"role": "assistant", "content": self._only_text(message)}
                if message.tool_calls:
                    turn["tool_calls"] = [_tool_call_entry(call) for call in message.tool_calls]
                yield turn
            elif message.role == "user":
                yield {"role": "user", "content": self._content(message)}

    def _content(self, message: Message) -> str | list[JsonBody]:
        if isinstance(message.content, str):
            return message.content
        return [self._part(part) for part in message.parts]

    def _part(self, part: str | Media) -> JsonBody:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        return self._media(part)

    def _media(self, media: Media) -> JsonBody:
        if media.kind == "image":
            self._check_media_type(media, IMAGES, "PNG, JPEG, WebP and GIF")
            return {"type": "image_url", "image_url": {"url": media.url or data_url(media)}}
        if media.url is not None:
            self._refuse("Chat Completions takes no document by URL; send its bytes")
        self._check_media_type(media, _DOCUMENTS, "PDF")
        file = {"filename": file_name(media), "file_data": data_url(media)}
        return {"type": "file", "file": file}

    def _parse(self, answer: RawAnswer, request: Request) -> Completion:
        body = answer.body
        if error := error_in("", body):  # OpenRouter, with status 200
            raise self._error_in_body(error)
        if not body.get("choices"):
            raise self._error_without_answer(body)
        choice = Alternatives().select(body["choices"])[0]
        if is_error(error := choice.get("error")):
            raise self._error_in_body({"error": error})
        reason = finish_reason_of(choice)
        message = choice["message"]
        if message.get("refusal") and self._is_whole_reason(reason):
            reason = "refusal"
        return self._completion(
            text=text_of(message.get("content")),
            model=non_empty(body.get("model")) or request.model,
            reason=reason,
            native_reason=choice.get("native_finish_reason"),
            usage=read_usage(usage_of(body)),
            request_id=answer.request_id or non_empty(body.get("id")),
            response_id=non_empty(body.get("id")),
            called=[_raw_tool_call(piece) for piece in tool_call_pieces(message)],
        )

    def _list_models(self) -> Iterable[str]:
        return (model.id for model in self._client.models.list(timeout=CHECK_S))


def _raw_tool_call(piece: JsonFields) -> RawToolCall:
    function = piece.get("function")
    if not isinstance(function, dict):
        function = piece  # the legacy form
    return RawToolCall(
        non_empty(piece.get("id")), non_empty(function.get("name")), function.get("arguments")
    )  # fmt: skip


def _tool_call_entry(call: ToolCall) -> JsonBody:
    called = {"name": call.name, "arguments": json.dumps(dict(call.arguments))}
    return {"type": "function", "id": call.id, "function": called}

"""OpenAI's Responses API, through `openai`."""

import json
from collections.abc import Iterable, Iterator
from typing import ClassVar

import httpx2
import openai

from breakwater.content import Media, Message
from breakwater.errors import ServerError, UnfinishedAnswer
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
    post_json,
)
from tasks.providers.base import Completion, Request
from tasks.providers.errors.bodies import is_error
from tasks.providers.json_values import JsonBody, JsonFields, as_object
from tasks.providers.openai_forms import (
    OpenAI,
    cache_key,
    json_schema,
    read_usage,
    tool_choice,
    tool_definition,
)
from tasks.providers.schemas import is_object
from tasks.providers.streams.relay import StreamRelay
from tasks.providers.streams.responses import ResponseStream, content_parts


class OpenAIProvider(Adapter):
    """GPT at OpenAI itself; `openai-chat` suits servers that imitate its API better."""

    BASE_URL = "https://api.openai.com/v1"
    PARAM_PATHS: ClassVar = {
        "max_output_tokens": "max_output_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "reasoning_effort": "reasoning.effort",
    }
    # Statuses, and the reasons of `incomplete`.
    FINISH: ClassVar = {
        "completed": "stop",
        "max_output_tokens": "length",
        "max_tokens": "length",  # imitators
        "content_filter": "content_filter",
        "refusal": "refusal",
        "failed": ServerError,
        "cancelled": UnfinishedAnswer,
        "max_messages": UnfinishedAnswer,
        "steered": UnfinishedAnswer,  # another response goes on with it
    }

    def _build_client(self, settings: ProviderSettings, key: str, http: httpx2.Client) -> None:
        self._prompt_cache = settings.prompt_cache
        self._client = OpenAI(
            api_key=key, base_url=self.base_url, max_retries=0, http_client=http,
            timeout=settings.timeout.total_s,
        )  # fmt: skip
        self._responses = self._client.responses  # imported here, and not under the first call

    def _call(self, request: Request) -> RawAnswer:
        return post_json(self._client, "/responses", self._body(request), request.timeout_s)

    def _call_streaming(self, request: Request, relay: StreamRelay) -> RawAnswer:
        body = self._body(request)
        with open_stream(
            self._client, openai.Stream[object], "/responses", body, request.timeout_s
        ) as response:
            stream = ResponseStream(relay, self._error_in_body)
            answer = stream.read(relay.objects(response.iter_bytes()))
            return RawAnswer(answer, response.headers.get("x-request-id"))

    def _body(self, request: Request) -> JsonBody:
        body = self._params(request.params)
        body["model"] = request.model
        body["store"] = False  # by default OpenAI keeps the prompt for 30 days or more
        body["input"] = list(self._items(request))
        if system := instructions(request):
            body["instructions"] = system
        if request.tools:
            body["tools"] = [
                {"type": "function", **tool_definition(tool)} for tool in request.tools
            ]
            if request.tool_choice != "auto":
                named = {"type": "function", "name": request.tool_choice}
                body["tool_choice"] = tool_choice(request.tool_choice, named)
        if request.schema is not None:
            shape = json_schema(request.schema)
            if not is_object(shape["schema"]):
                self._refuse("it takes a schema of an object only")
            body["text"] = {"format": {"type": "json_schema", **shape}}
        if self._prompt_cache and (key := cache_key(request)):
            body["prompt_cache_key"] = key
        return body

    def _items(self, request: Request) -> Iterator[JsonBody]:
        for message in request.messages:
            if message.role == "tool":
                yield {
                    "type": "function_call_output",
                    "call_id": message.tool_call_id,
                    "output": self._content(message),
                }
            elif message.role != "system":
                if message.content or not message.tool_calls:
                    yield {"role": message.role, "content": self._content(message)}
                for call in message.tool_calls:
                    yield {
                        "type": "function_call", "call_id": call.id, "name": call.name,
                        "arguments": json.dumps(dict(call.arguments)),
                    }  # fmt: skip

    def _content(self, message: Message) -> str | list[JsonBody]:
        if isinstance(message.content, str):
            return message.content
        if message.role == "assistant":
            return self._only_text(message)
        return [self._part(part) for part in message.parts]

    def _part(self, part: str | Media) -> JsonBody:
        if isinstance(part, str):
            return {"type": "input_text", "text": part}
        return self._media(part)

    def _media(self, media: Media) -> JsonBody:
        if media.kind == "image":
            self._check_media_type(media, IMAGES, "PNG, JPEG, WebP and GIF")
            return {
                "type": "input_image", "image_url": media.url or data_url(media), "detail": "auto"
            }  # fmt: skip
        if media.url is not None:
            return {"type": "input_file", "file_url": media.url}
        return {
            "type": "input_file", "filename": file_name(media), "file_data": data_url(media)
        }  # fmt: skip

    def _parse(self, answer: RawAnswer, request: Request) -> Completion:
        body = answer.body
        if is_error(body.get("error")):  # status "failed", in an answer with HTTP status 200
            raise self._error_in_body(body)
        if body.get("output") is None:
            raise self._error_without_answer(body)
        items = [item for item in body["output"] if isinstance(item, dict)]
        messages = [item for item in items if item.get("type", "message") == "message"]
        parts = [part for message in messages for part in content_parts(message.get("content"))]
        text = "".join(part.get("text") or "" for part in parts if part["type"] == "output_text")
        is_refused = any(part["type"] == "refusal" for part in parts)
        return self._completion(
            text=text,
            model=non_empty(body.get("model")) or request.model,
            reason=_reason(body, is_refused=is_refused),
            usage=read_usage(body.get("usage")),
            request_id=answer.request_id,
            response_id=non_empty(body.get("id")),
            called=[
                RawToolCall(non_empty(item.get("call_id")) or non_empty(item.get("id")),
                       non_empty(item.get("name")), item.get("arguments"))
                for item in items
                if item.get("type") == "function_call"
            ],
        )  # fmt: skip

    def _list_models(self) -> Iterable[str]:
        return (model.id for model in self._client.models.list(timeout=CHECK_S))


def _reason(body: JsonFields, *, is_refused: bool) -> object:
    """Return the status, or why the answer is incomplete; None while it goes on."""
    status = body.get("status")
    if status in (None, "queued", "in_progress"):
        return None
    if is_refused and status != "failed":
        return "refusal"
    if status == "incomplete":
        return as_object(body.get("incomplete_details")).get("reason")
    return status

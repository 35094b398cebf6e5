"""Anthropic's Messages API, through `anthropic`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import anthropic
import httpx2

from breakwater.attempt import UNCOUNTED, Usage
from breakwater.content import Media, Tool
from breakwater.content import Message as Turn
from breakwater.errors import ServerError, TruncatedAnswer, UnfinishedAnswer
from tasks.config import ProviderSettings
from tasks.providers.adapter import (
    CHECK_S,
    IMAGES,
    Adapter,
    RawAnswer,
    RawToolCall,
    instructions,
    non_empty,
    open_stream,
    parameters,
    post_json,
)
from tasks.providers.base import Completion, Request
from tasks.providers.errors.bodies import is_error
from tasks.providers.schemas import UnsupportedSchema, closed
from tasks.providers.streams.anthropic_messages import MessageStream, content_blocks
from tasks.providers.streams.relay import StreamRelay
from tasks.providers.token_counts import object_at, read_count, read_part, sum_counts
from tasks.providers.usage import Counts, to_usage

MAX_TOKENS = 4096
"""The API insists on a bound; this is taken where nobody gave `max_output_tokens`."""


_TOOL_CHOICES = {"none": {"type": "none"}, "required": {"type": "any"}}
_DOCUMENTS = frozenset({"application/pdf"})


class _Client(anthropic.Anthropic):
    """The SDK's client; it builds the URL of each path once, which else costs a call 80 us."""

    def _prepare_url(self, url: str) -> httpx2.URL:
        urls: dict[str, httpx2.URL] = self.__dict__.setdefault("_urls", {})
        if url not in urls:
            urls[url] = super()._prepare_url(url)
        return urls[url]


class AnthropicProvider(Adapter):
    """Claude."""

    BASE_URL = "https://api.anthropic.com"
    # Without temperature and top_p: the API of 2026-10-21, which the SDK speaks, refuses them.
    PARAM_PATHS: ClassVar = {
        "max_output_tokens": "max_tokens",
        "stop": "stop_sequences",
        "reasoning_effort": "output_config.effort",
    }
    EFFORTS: ClassVar = {"none": "low", "minimal": "low"}
    FINISH: ClassVar = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "refusal": "refusal",
        # The turn goes on when the answer is sent back: for tools that Anthropic runs, and for
        # compaction of the conversation. Neither is ever asked for.
        "pause_turn": UnfinishedAnswer,
        "compaction": UnfinishedAnswer,
        # Imitators' words: Bedrock's, and those of OpenAI's wire format.
        "guardrail_intervened": "content_filter",
        "content_filtered": "content_filter",
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "content_filter": "content_filter",
        "error": ServerError,
        "abort": TruncatedAnswer,
    }

    def _build_client(self, settings: ProviderSettings, key: str, http: httpx2.Client) -> None:
        self._prompt_cache = settings.prompt_cache
        self._client = _Client(
            api_key=key, base_url=self.base_url, max_retries=0, http_client=http,
            timeout=settings.timeout.total_s, open_telemetry=False,
        )  # fmt: skip
        self._messages = self._client.messages  # imported here, and not under the first call

    def _call(self, request: Request) -> RawAnswer:
        return post_json(self._client, "/v1/messages", self._body(request), request.timeout_s)

    def _call_streaming(self, request: Request, relay: StreamRelay) -> RawAnswer:
        body = self._body(request)
        with open_stream(
            self._client, anthropic.Stream[object], "/v1/messages", body, request.timeout_s
        ) as response:
            stream = MessageStream(relay, self._error_in_body)
            message = stream.read(relay.objects(response.iter_bytes()))
            return RawAnswer(message, response.headers.get("request-id"))

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {"max_tokens": MAX_TOKENS, **self._params(request.params)}
        body["model"] = request.model
        body["messages"] = turns = list(self._turns(request))
        if turns and turns[-1]["role"] == "assistant" and isinstance(turns[-1]["content"], str):
            # The beginning of the answer; the API refuses white space at its end.
            turns[-1]["content"] = turns[-1]["content"].rstrip()
        if system := instructions(request):
            body["system"] = system
        if request.tools:
            body["tools"] = [_tool_definition(tool) for tool in request.tools]
            if request.tool_choice != "auto":
                body["tool_choice"] = _TOOL_CHOICES.get(
                    request.tool_choice, {"type": "tool", "name": request.tool_choice}
                )
        elif called := {call.name for each in request.messages for call in each.tool_calls}:
            # A conversation with calls must define tools; these are not to be called again.
            body["tools"] = [_tool_definition(Tool(name)) for name in sorted(called)]
            body["tool_choice"] = _TOOL_CHOICES["none"]
        if request.schema is not None:
            body.setdefault("output_config", {})["format"] = {
                "type": "json_schema", "schema": self._schema(request.schema),
            }  # fmt: skip
        if self._prompt_cache:
            _mark_for_caching(body)
        return body

    def _turns(self, request: Request) -> Iterator[dict[str, Any]]:
        """Leave out what says nothing: the API refuses empty turns, and texts of white space."""
        results: list[dict[str, Any]] = []
        has_begun = False
        for message in request.messages:
            if message.role == "tool":
                results.append(self._tool_result(message))
                if len(results) == 1:  # all results of a turn go into one, the list filled below
                    yield {"role": "user", "content": results}
            elif message.role != "system" and (content := self._content(message)):
                if message.role == "assistant" and not has_begun:
                    self._refuse("it takes no conversation that begins with the assistant")
                results = []
                has_begun = True
                yield {"role": message.role, "content": content}

    def _tool_result(self, message: Turn) -> dict[str, Any]:
        content = self._content(message)
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id}
        return {**result, "content": content} if content else result

    def _content(self, message: Turn) -> str | list[dict[str, Any]]:
        """Return what a turn says; empty if it says nothing."""
        if isinstance(message.content, str) and not message.tool_calls:
            return message.content if message.content.strip() else ""
        if message.role == "assistant":
            self._only_text(message)
        blocks = [
            {"type": "text", "text": part} if isinstance(part, str) else self._media(part)
            for part in message.parts
            if not isinstance(part, str) or part.strip()
        ]
        return blocks + [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)}
            for call in message.tool_calls
        ]

    def _media(self, media: Media) -> dict[str, Any]:
        source: dict[str, Any]
        if media.url is not None:
            source = {"type": "url", "url": media.url}
        elif media.kind == "document" and (media.media_type or "").startswith("text/"):
            text = self._bytes(media).decode(errors="replace")
            source = {"type": "text", "media_type": "text/plain", "data": text}
        else:
            kinds = IMAGES if media.kind == "image" else _DOCUMENTS
            self._check_media_type(media, kinds, "PNG, JPEG, WebP, GIF; PDF and text")
            source = {"type": "base64", "media_type": media.media_type, "data": media.data}
        named = {"title": media.name} if media.kind == "document" and media.name else {}
        return {"type": media.kind, "source": source, **named}

    def _schema(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return anthropic.transform_schema(closed(schema))
        except (UnsupportedSchema, ValueError) as error:
            why = error if isinstance(error, UnsupportedSchema) else "it allows anything somewhere"
            self._refuse(f"it does not take the schema: {why}")

    def _parse(self, answer: RawAnswer, request: Request) -> Completion:
        body = answer.body
        if is_error(body.get("error")):  # some gateways, with status 200
            raise self._error_in_body(body)
        if body.get("content") is None:
            raise self._error_without_answer(body)
        blocks = content_blocks(body["content"])
        return self._completion(
            text="".join(
                block.get("text") or "" for block in blocks if block.get("type") == "text"
            ),
            model=non_empty(body.get("model")) or request.model,
            reason=body.get("stop_reason"),
            usage=_read_usage(body.get("usage")),
            request_id=answer.request_id,
            response_id=non_empty(body.get("id")),
            called=[
                RawToolCall(
                    non_empty(block.get("id")), non_empty(block.get("name")), block.get("input")
                )
                for block in blocks
                if block.get("type") == "tool_use"
            ],
        )

    def _list_models(self) -> Iterable[str]:
        return (model.id for model in self._client.models.list(limit=1000, timeout=CHECK_S))


def _read_usage(used: object) -> Usage:
    if not isinstance(used, Mapping):
        return UNCOUNTED
    input_tokens, output_tokens = (
        read_count(used, "input_tokens"),
        read_count(used, "output_tokens"),
    )
    if input_tokens is None and output_tokens is None:
        return UNCOUNTED
    read, written = (
        read_part(used, "cache_read_input_tokens"),
        read_part(used, "cache_creation_input_tokens"),
    )
    thought = read_part(object_at(used, "output_tokens_details"), "thinking_tokens")
    all_input = sum_counts(input_tokens, read, written)  # theirs leaves the other two out
    return to_usage(
        Counts(
            all_input, output_tokens, read, written, thought, sum_counts(all_input, output_tokens)
        )
    )


def _tool_definition(tool: Tool) -> dict[str, Any]:
    definition = {"name": tool.name, "input_schema": parameters(tool)}
    if tool.description:
        definition["description"] = tool.description
    return definition


def _mark_for_caching(body: dict[str, Any]) -> None:
    """
    Mark what later calls will begin with.

    Tools and system prompt are the same for all tasks of a role, so they end with a mark of their
    own. The top-level mark goes to the last block, the prompt itself: nobody asks the same again,
    and writing costs a quarter more than reading plainly. Only a conversation gets it, since its
    next turn begins with this one.
    """
    mark = {"type": "ephemeral"}
    if "system" in body:  # tools come before it, and are cached along
        body["system"] = [{"type": "text", "text": body["system"], "cache_control": mark}]
    elif "tools" in body:
        body["tools"][-1]["cache_control"] = mark
    if any(message["role"] == "assistant" for message in body["messages"]):
        body["cache_control"] = mark

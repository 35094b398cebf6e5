"""Anthropic's Messages API, through `anthropic`."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

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
from tasks.providers.json_values import JsonBody, JsonFields
from tasks.providers.schemas import UnsupportedSchema, closed
from tasks.providers.streams.anthropic_messages import MessageStream, content_blocks
from tasks.providers.streams.relay import StreamRelay
from tasks.providers.token_counts import object_at, read_count, read_part, sum_counts
from tasks.providers.usage import Counts, to_usage

MAX_TOKENS = 4096
"""The default of `max_output_tokens`, because the API insists on a bound."""


_TOOL_CHOICES = {"none": {"type": "none"}, "required": {"type": "any"}}
_TYPES = {"image": IMAGES, "document": frozenset({"application/pdf"})}


class Anthropic(anthropic.Anthropic):
    """
    The SDK's client; it builds the URL of each path once, which else costs a call 80 us.

    The SDK sends the class's name as the user agent.
    """

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
        # compaction of the conversation. Requests use neither.
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
        self._client = Anthropic(
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

    def _body(self, request: Request) -> JsonBody:
        body: JsonBody = {"max_tokens": MAX_TOKENS, **self._params(request.params)}
        body["model"] = request.model
        body["messages"] = turns = list(self._turns(request))
        if turns and turns[-1]["role"] == "assistant" and isinstance(turns[-1]["content"], str):
            # The answer's beginning; the API refuses white space at its end.
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
            # A conversation with calls must define tools; these must not be called again.
            body["tools"] = [_tool_definition(Tool(name)) for name in sorted(called)]
            body["tool_choice"] = _TOOL_CHOICES["none"]
        if request.schema is not None:
            body.setdefault("output_config", {})["format"] = {
                "type": "json_schema", "schema": self._schema(request.schema),
            }  # fmt: skip
        if self._prompt_cache:
            _mark_for_caching(body)
        return body

    def _turns(self, request: Request) -> Iterator[JsonBody]:
        """Yield the turns with content: the API refuses empty turns, and texts of white space."""
        results: list[JsonBody] = []
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

    def _tool_result(self, message: Turn) -> JsonBody:
        content = self._content(message)
        result: JsonBody = {"type": "tool_result", "tool_use_id": message.tool_call_id}
        if content:
            result["content"] = content
        return result

    def _content(self, message: Turn) -> str | list[JsonBody]:
        """Return the content of a turn; empty if it has only white space."""
        if isinstance(message.content, str) and not message.tool_calls:
            if message.content.isspace():
                return ""
            return message.content
        if message.role == "assistant":
            self._only_text(message)
        blocks: list[JsonBody] = []
        for part in message.parts:
            if isinstance(part, Media):
                blocks.append(self._media(part))
            elif part.strip():
                blocks.append({"type": "text", "text": part})
        return blocks + [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)}
            for call in message.tool_calls
        ]

    def _media(self, media: Media) -> JsonBody:
        source: JsonBody
        if media.url is not None:
            source = {"type": "url", "url": media.url}
        elif media.kind == "document" and (media.media_type or "").startswith("text/"):
            text = self._bytes(media).decode(errors="replace")
            source = {"type": "text", "media_type": "text/plain", "data": text}
        else:
            self._check_media_type(media, _TYPES[media.kind], "PNG, JPEG, WebP, GIF; PDF and text")
            source = {"type": "base64", "media_type": media.media_type, "data": media.data}
        block: JsonBody = {"type": media.kind, "source": source}
        if media.kind == "document" and media.name:
            block["title"] = media.name
        return block

    def _schema(self, schema: JsonFields) -> JsonBody:
        try:
            return anthropic.transform_schema(closed(schema))
        except UnsupportedSchema as error:
            self._refuse(f"it does not take the schema: {error}")
        except ValueError:
            self._refuse("it does not take the schema: it allows anything somewhere")

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
    if not isinstance(used, dict):
        return UNCOUNTED
    input_tokens, output_tokens = (
        read_count(used, "input_tokens"),
        read_count(used, "output_tokens"),
    )
    if input_tokens is None and output_tokens is None:
        return UNCOUNTED
    read = read_part(used, "cache_read_input_tokens")
    written = read_part(used, "cache_creation_input_tokens")
    thought = read_part(object_at(used, "output_tokens_details"), "thinking_tokens")
    all_input = sum_counts(input_tokens, read, written)  # Anthropic's count leaves these out
    return to_usage(
        Counts(
            all_input, output_tokens, read, written, thought, sum_counts(all_input, output_tokens)
        )
    )


def _tool_definition(tool: Tool) -> JsonBody:
    definition = {"name": tool.name, "input_schema": parameters(tool)}
    if tool.description:
        definition["description"] = tool.description
    return definition


def _mark_for_caching(body: JsonBody) -> None:
    """
    Mark the prefix that later calls will share.

    Tools and system prompt are the same for all tasks of a role, so they end with a mark. The
    top-level mark applies to the last block, the prompt itself. A single prompt is not sent again,
    and writing it to the cache costs a quarter more than reading it plainly, so only a conversation
    gets this mark: its next turn begins with this one.
    """
    mark = {"type": "ephemeral"}
    if "system" in body:  # the tools stand before it, and are cached with it
        body["system"] = [{"type": "text", "text": body["system"], "cache_control": mark}]
    elif "tools" in body:
        body["tools"][-1]["cache_control"] = mark
    if any(message["role"] == "assistant" for message in body["messages"]):
        body["cache_control"] = mark

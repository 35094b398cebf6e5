"""Anthropic's Messages API, through `anthropic`."""

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import anthropic
import httpx2
from anthropic.types import Message, RawMessageStreamEvent

from tasks.config import ProviderSettings
from tasks.errors import TruncatedAnswer
from tasks.providers.adapter import CHECK_S, Adapter, Called, instructions, turns
from tasks.providers.base import Completion, Request, Usage
from tasks.providers.hearing import Hearing

MAX_TOKENS = 4096
"""The API insists on a bound; this is taken where nobody gave `max_output_tokens`."""


class AnthropicProvider(Adapter):
    """Claude."""

    BASE_URL = "https://api.anthropic.com"
    # Without temperature and top_p: the API of 2026-10-21, which the SDK speaks, refuses them.
    TAKES: ClassVar = {
        "max_output_tokens": "max_tokens",
        "stop": "stop_sequences",
        "reasoning_effort": "output_config.effort",
    }
    EFFORTS: ClassVar = {"none": "low", "minimal": "low"}
    FINISH: ClassVar = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "pause_turn": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "refusal": "refusal",
    }

    def _set_up(self, settings: ProviderSettings, key: str, http: httpx2.Client) -> None:
        self._prompt_cache = settings.prompt_cache
        self._client = anthropic.Anthropic(
            api_key=key, base_url=self.base_url, max_retries=0, http_client=http,
            timeout=settings.timeout.total_s, open_telemetry=False,
        )  # fmt: skip

    def _ask(self, request: Request) -> Message:
        answer: Message = self._client.messages.create(**self._body(request))
        return answer

    def _listen(self, request: Request, hearing: Hearing) -> Message:
        with self._client.messages.create(**self._body(request), stream=True) as stream:
            answer = _heard(stream, hearing)
            answer._request_id = stream.response.headers.get("request-id")
            return answer

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {"max_tokens": MAX_TOKENS, **self._params(request.params)}
        body["model"], body["timeout"] = request.model, request.timeout_s
        body["messages"] = turns(request)
        if system := instructions(request):
            body["system"] = system
        if self._prompt_cache:
            body["cache_control"] = {"type": "ephemeral"}
        return body

    def _read(self, answer: Message, request: Request) -> Completion:
        used = answer.usage
        cached, written = used.cache_read_input_tokens or 0, used.cache_creation_input_tokens or 0
        details = used.output_tokens_details
        return self._completion(
            text="".join(block.text for block in answer.content if block.type == "text"),
            model=answer.model or request.model,
            reason=answer.stop_reason,
            usage=Usage(
                input_tokens=used.input_tokens + cached + written,  # theirs leaves these two out
                output_tokens=used.output_tokens,
                cached_input_tokens=cached,
                cache_write_tokens=written,
                reasoning_tokens=details.thinking_tokens if details else 0,
            ),
            request_id=answer._request_id,
            response_id=answer.id,
            called=[
                Called(block.id, block.name, block.input)
                for block in answer.content
                if block.type == "tool_use"
            ],
        )

    def _models(self) -> Iterable[str]:
        return (model.id for model in self._client.models.list(limit=1000, timeout=CHECK_S))


def _heard(stream: Iterable[RawMessageStreamEvent], hearing: Hearing) -> Message:
    """Put the events together to what a plain call would have answered."""
    answer: Any = None
    reason = None
    calls: dict[int, int] = {}  # by block: which of the calls it is
    for event in stream:
        if event.type == "message_start":
            answer = event.message
        elif event.type == "content_block_start":
            block: Any = event.content_block
            answer.content.append(block)
            if block.type == "tool_use":
                block.input = ""  # its JSON text, as it comes
                calls[event.index] = len(calls)
                hearing.call(calls[event.index], block.id, block.name)
        elif event.type == "content_block_delta":
            _extend(answer.content[event.index], event.delta, calls.get(event.index, 0), hearing)
        elif event.type == "message_delta":
            reason = event.delta.stop_reason
            _count(answer.usage, event.usage)
        elif event.type == "message_stop":
            answer.stop_reason = reason
    if answer is None:
        raise TruncatedAnswer("the stream ended before it began")
    return cast("Message", answer)


def _extend(block: Any, delta: Any, call: int, hearing: Hearing) -> None:
    if delta.type == "text_delta":
        block.text += delta.text
        hearing.text(delta.text)
    elif delta.type == "input_json_delta":
        block.input += delta.partial_json
        hearing.call(call, arguments=delta.partial_json)
    else:  # thinking, its signature, citations
        hearing.sign()


def _count(usage: Any, told: Any) -> None:
    """Take over the later counts: each is cumulative, and most are left out."""
    for name in told.model_fields_set:
        if (count := getattr(told, name)) is not None:
            setattr(usage, name, count)

"""Anthropic's Messages API, through `anthropic`."""

from collections.abc import Iterable
from typing import Any, ClassVar

import anthropic
import httpx2
from anthropic.types import Message

from tasks.config import ProviderSettings
from tasks.providers.adapter import CHECK_S, Adapter, instructions, turns
from tasks.providers.base import Completion, Request, Usage

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
        body: dict[str, Any] = {"max_tokens": MAX_TOKENS, **self._params(request.params)}
        body["messages"] = turns(request)
        if system := instructions(request):
            body["system"] = system
        if self._prompt_cache:
            body["cache_control"] = {"type": "ephemeral"}
        answer: Message = self._client.messages.create(
            model=request.model, timeout=request.timeout_s, **body
        )
        return answer

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
        )

    def _models(self) -> Iterable[str]:
        return (model.id for model in self._client.models.list(limit=1000, timeout=CHECK_S))

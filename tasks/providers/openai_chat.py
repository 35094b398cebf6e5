"""
OpenAI's Chat Completions API, through `openai`: what every compatible server speaks.

vLLM, Ollama, llama.cpp, Azure, OpenRouter and OpenAI itself.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import httpx2
import openai
from openai.types.chat import ChatCompletion

from tasks.config import ProviderSettings
from tasks.providers.adapter import CHECK_S, Adapter, instructions, turns
from tasks.providers.base import Completion, Request, Usage
from tasks.providers.vendor_errors import from_body


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
        self._client = openai.OpenAI(
            api_key=key, base_url=self.base_url, max_retries=0, http_client=http,
            timeout=settings.timeout.total_s,
        )  # fmt: skip

    def _ask(self, request: Request) -> ChatCompletion:
        body = self._params(request.params)
        if self._official:
            # The new name, which OpenAI's reasoning models insist on and others do not know.
            if "max_tokens" in body:
                body["max_completion_tokens"] = body.pop("max_tokens")
            body["store"] = False
        system = instructions(request)
        first = [{"role": "system", "content": system}] if system else []
        body["messages"] = [*first, *turns(request)]
        answer: ChatCompletion = self._client.chat.completions.create(
            model=request.model, timeout=request.timeout_s, **body
        )
        return answer

    def _read(self, answer: ChatCompletion, request: Request) -> Completion:
        if isinstance(error := getattr(answer, "error", None), dict):  # OpenRouter, with status 200
            status = error.get("code")
            raise from_body(
                self.name, {"error": error}, status if isinstance(status, int) else None
            )
        choice = answer.choices[0]
        text = choice.message.content or ""
        return self._completion(
            text=text,
            model=answer.model or request.model,
            reason="refusal" if choice.message.refusal else choice.finish_reason,
            usage=_usage(answer.usage),
            request_id=answer._request_id or answer.id,
            response_id=answer.id,
        )

    def _models(self) -> Iterable[str]:
        return (model.id for model in self._client.models.list(timeout=CHECK_S))


def _usage(used: Any) -> Usage:
    if used is None:  # some servers do not count
        return Usage()
    read, wrote = used.prompt_tokens_details, used.completion_tokens_details
    return Usage(
        input_tokens=used.prompt_tokens,
        output_tokens=used.completion_tokens,
        cached_input_tokens=read.cached_tokens or 0 if read else 0,
        cache_write_tokens=read.cache_write_tokens or 0 if read else 0,
        reasoning_tokens=wrote.reasoning_tokens or 0 if wrote else 0,
    )

"""Google's Gemini API (`generate_content`), through `google-genai`."""

import math
from collections.abc import Iterable
from typing import ClassVar

import httpx2
from google import genai
from google.genai import types

from tasks.config import ProviderSettings
from tasks.errors import GarbledAnswer
from tasks.providers.adapter import CHECK_S, Adapter, instructions, turns
from tasks.providers.base import Completion, Request, Usage

SERVER_TIMEOUT_S = 10
"""
The shortest deadline the API accepts in X-Server-Timeout; to a shorter one it answers 400.

Source: "Minimum allowed deadline is 10s", github.com/livekit/agents/issues/3723.
"""


class GoogleProvider(Adapter):
    """Gemini."""

    BASE_URL = "https://generativelanguage.googleapis.com"
    TAKES: ClassVar = {
        "max_output_tokens": "max_output_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "stop": "stop_sequences",
        "seed": "seed",
        "reasoning_effort": "thinking_config.thinking_level",
    }
    EFFORTS: ClassVar = {"none": "minimal", "max": "xhigh"}
    FINISH: ClassVar = {
        "STOP": "stop",
        "MAX_TOKENS": "length",
        "CONTINUATION": "length",
        **dict.fromkeys(
            (
                "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
                "IMAGE_SAFETY", "ESCALATION", "MODEL_ARMOR", "blocked",
            ),
            "content_filter",
        ),
        **dict.fromkeys(
            ("MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "OTHER"),
            GarbledAnswer,
        ),
    }  # fmt: skip

    def _set_up(self, settings: ProviderSettings, key: str, http: httpx2.Client) -> None:
        self._client = genai.Client(
            api_key=key,
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=self.base_url, api_version="v1", httpx_client=http,
                timeout=_ms(settings.timeout.total_s),
                retry_options=types.HttpRetryOptions(attempts=1),
            ),
        )  # fmt: skip

    def _ask(self, request: Request) -> types.GenerateContentResponse:
        return self._client.models.generate_content(
            model=request.model,
            contents=[
                types.Content(
                    role="model" if turn["role"] == "assistant" else "user",
                    parts=[types.Part(text=turn["content"])],
                )
                for turn in turns(request)
            ],
            config=types.GenerateContentConfig(
                **self._params(request.params),
                system_instruction=instructions(request),
                # Both could make several billed calls of one.
                automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
                automatic_continuation=False,
                http_options=_in_time(request.timeout_s),
            ),
        )

    def _read(self, answer: types.GenerateContentResponse, request: Request) -> Completion:
        text, reason = "", None
        if answer.candidates:
            candidate = answer.candidates[0]
            parts = (candidate.content.parts if candidate.content else None) or []
            text = "".join(part.text for part in parts if part.text and not part.thought)
            reason = candidate.finish_reason.value if candidate.finish_reason else None
        elif answer.prompt_feedback and answer.prompt_feedback.block_reason:
            reason = "blocked"
        else:
            raise GarbledAnswer(f"{self.name}: the answer has no candidates")
        return self._completion(
            text=text,
            model=answer.model_version or request.model,
            reason=reason,
            usage=_usage(answer.usage_metadata),
            request_id=answer.response_id,
            response_id=answer.response_id,
        )

    def _models(self) -> Iterable[str]:
        listed = self._client.models.list(
            config=types.ListModelsConfig(
                page_size=1000, query_base=True, http_options=_in_time(CHECK_S)
            )
        )
        return ((model.name or "").removeprefix("models/") for model in listed)


def _usage(used: types.GenerateContentResponseUsageMetadata | None) -> Usage:
    if used is None:
        return Usage()
    thoughts = used.thoughts_token_count or 0
    return Usage(
        input_tokens=(used.prompt_token_count or 0) + (used.tool_use_prompt_token_count or 0),
        output_tokens=(used.candidates_token_count or 0) + thoughts,  # theirs leaves thoughts out
        cached_input_tokens=used.cached_content_token_count or 0,
        reasoning_tokens=thoughts,
    )


def _in_time(timeout_s: float) -> types.HttpOptions:
    return types.HttpOptions(
        timeout=_ms(timeout_s),
        headers={"X-Server-Timeout": str(max(SERVER_TIMEOUT_S, math.ceil(timeout_s)))},
    )


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))

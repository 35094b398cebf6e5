"""Google's Gemini API (`generate_content`), through `google-genai`."""

import json
import math
from base64 import b64encode
from collections.abc import Iterable
from contextlib import closing
from typing import Any, ClassVar

import httpx2
from google import genai
from google.genai import types

from tasks.config import ProviderSettings
from tasks.errors import GarbledAnswer, TruncatedAnswer
from tasks.providers.adapter import CHECK_S, Adapter, Called, instructions, turns
from tasks.providers.base import Completion, Request, Usage
from tasks.providers.hearing import Hearing

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
        return self._client.models.generate_content(**self._body(request))

    def _listen(self, request: Request, hearing: Hearing) -> types.GenerateContentResponse:
        # Nothing is sent before the first chunk is asked for, and only closing ends it early.
        stream: Any = self._client.models.generate_content_stream(**self._body(request))
        with closing(stream):
            return _heard(stream, hearing)

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": request.model,
            "contents": [
                types.Content(
                    role="model" if turn["role"] == "assistant" else "user",
                    parts=[types.Part(text=turn["content"])],
                )
                for turn in turns(request)
            ],
            "config": types.GenerateContentConfig(
                **self._params(request.params),
                system_instruction=instructions(request),
                # Both could make several billed calls of one.
                automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
                automatic_continuation=False,
                http_options=_in_time(request.timeout_s),
            ),
        }

    def _read(self, answer: types.GenerateContentResponse, request: Request) -> Completion:
        text, reason, parts = "", None, []
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
            called=[_called(part, part.function_call) for part in parts if part.function_call],
        )

    def _models(self) -> Iterable[str]:
        listed = self._client.models.list(
            config=types.ListModelsConfig(
                page_size=1000, query_base=True, http_options=_in_time(CHECK_S)
            )
        )
        return ((model.name or "").removeprefix("models/") for model in listed)


def _called(part: types.Part, call: types.FunctionCall) -> Called:
    signature = b64encode(part.thought_signature).decode() if part.thought_signature else None
    return Called(call.id, call.name, call.args or {}, signature)


def _heard(
    stream: Iterable[types.GenerateContentResponse], hearing: Hearing
) -> types.GenerateContentResponse:
    """Put the chunks together to what a plain call would have answered."""
    answer: types.GenerateContentResponse | None = None
    parts: list[types.Part] = []
    reason = usage = None
    for answer in stream:
        usage = answer.usage_metadata or usage  # every chunk counts; the last has it all
        for candidate in (answer.candidates or ())[:1]:
            reason = candidate.finish_reason or reason
            for part in (candidate.content.parts if candidate.content else None) or ():
                parts.append(part)
                _tell(part, sum(bool(p.function_call) for p in parts) - 1, hearing)
    if answer is None:
        raise TruncatedAnswer("the stream ended before it began")
    if parts or reason:
        content = types.Content(role="model", parts=parts)
        answer.candidates = [types.Candidate(content=content, finish_reason=reason)]
    answer.usage_metadata = usage
    return answer


def _tell(part: types.Part, call: int, hearing: Hearing) -> None:
    if part.function_call:
        told = part.function_call
        hearing.call(call, told.id, told.name, json.dumps(told.args or {}))
    elif part.text and not part.thought:
        hearing.text(part.text)
    else:
        hearing.sign()


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

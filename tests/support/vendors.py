"""The four adapters, each over a server of ours, and the answers their vendors would give."""

from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from breakwater.content import Message
from tasks.catalogue import load_class
from tasks.config import ProviderSettings, Timeout
from tasks.providers.base import Provider, Request

KEY = "sk-test-0123456789"


def settings_for(adapter: str, url: str, **fields: Any) -> ProviderSettings:
    """Return a provider's settings over a server; `url` is without OpenAI's `/v1`."""
    settings = ProviderSettings(
        name=f"my-{adapter}",
        adapter=adapter,
        model="m-1",
        api_key=SecretStr(KEY),
        base_url=f"{url}/v1" if adapter.startswith("openai") else url,
        timeout=Timeout(connect_s=180, total_s=180),
    )
    return replace(settings, **fields)


def provider_for(adapter: str, url: str, **fields: Any) -> Provider:
    """Build an adapter over a server."""
    provider: Provider = load_class(adapter)(settings_for(adapter, url, **fields))
    return provider


def request(prompt: str = "hello", timeout_s: float = 180, **fields: Any) -> Request:
    """Return a request of one user message."""
    return Request([Message("user", prompt)], "m-1", timeout_s=timeout_s, **fields)


def answer_of(adapter: str, text: str | None = "hi", finish: str = "") -> dict[str, Any]:
    """Return the smallest good answer of a vendor; `finish` is in the vendor's words."""
    if adapter == "anthropic":
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1-dated",
            "content": [] if text is None else [{"type": "text", "text": text}],
            "stop_reason": finish or "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 5},
        }  # fmt: skip
    if adapter == "openai":
        part = {"type": "output_text", "text": text, "annotations": []}
        status = finish if finish in {"failed", "in_progress", "queued"} else "completed"
        return {
            "id": "resp_1", "object": "response", "created_at": 1, "model": "m-1-dated",
            "status": "incomplete" if finish and status == "completed" else status,
            "error": None, "incomplete_details": {"reason": finish} if finish else None,
            "output": [{
                "type": "message", "id": "m", "role": "assistant", "status": "completed",
                "content": [] if text is None else [part],
            }],
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "usage": {
                "input_tokens": 3, "output_tokens": 5, "total_tokens": 8,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }  # fmt: skip
    if adapter == "openai-chat":
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m-1-dated",
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": text},
                "finish_reason": finish or "stop",
            }],
            "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        }  # fmt: skip
    return {
        "candidates": [{
            "content": {"role": "model", "parts": [] if text is None else [{"text": text}]},
            "finishReason": finish or "STOP", "index": 0,
        }],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8},
        "modelVersion": "m-1-dated", "responseId": "r-1",
    }  # fmt: skip

"""
Celery around pydantic-ai's FallbackModel, by its direct requests: no agent, nothing but the models.

https://ai.pydantic.dev/models/overview/#fallback-model; each provider builds its own client. Its
synchronous requests run on an event loop of their thread, so a thread has models of its own: a
client that is shared by the loops breaks on connections of another's.
"""

import threading
from typing import Any

from pydantic_ai.direct import model_request_sync
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.settings import ModelSettings

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.given import MAX_TOKENS, Given, Target

given = Given.read()
mine = threading.local()
settings = ModelSettings(max_tokens=MAX_TOKENS, timeout=given.timeout_s)


def model(target: Target) -> Any:
    """Return one provider's model."""
    return {"anthropic": _anthropic, "openai": _openai, "google": _google}[target.adapter](target)


def _anthropic(target: Target) -> Any:
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    provider = AnthropicProvider(api_key="none", base_url=target.base_url)
    return AnthropicModel(target.model, provider=provider, settings=settings)


def _openai(target: Target) -> Any:
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(api_key="none", base_url=f"{target.base_url}/v1")
    return OpenAIResponsesModel(target.model, provider=provider, settings=settings)


def _google(target: Target) -> Any:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    provider = GoogleProvider(api_key="none", base_url=target.base_url)
    return GoogleModel(target.model, provider=provider, settings=settings)


def ask(role: str, prompt: str) -> str:
    """Ask a role's providers."""
    models = mine.__dict__
    if role not in models:
        first, *others = map(model, given.roles[role])
        models[role] = FallbackModel(first, *others) if others else first
    answer = model_request_sync(models[role], [ModelRequest.user_text_prompt(prompt)])
    return answer.text or ""


app = app_for(given, ask)

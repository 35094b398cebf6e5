"""
Celery around pydantic-ai's FallbackModel, by its direct requests: no agent, nothing but the models.

https://ai.pydantic.dev/models/overview/#fallback-model; each provider builds its own client. All
threads share one event loop beside them: `model_request_sync` has a loop for each thread, and would
need models and clients for each, since connections do not work on another loop's (936 MB at 1,000).
"""

import asyncio
import threading
from typing import Any

from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.settings import ModelSettings

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.experiment import MAX_TOKENS, Experiment, Target

experiment = Experiment.read()
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
settings = ModelSettings(max_tokens=MAX_TOKENS, timeout=experiment.timeout_s)


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


def role_model(chain: list[Target]) -> Any:
    """Return a role's model: the first, with the others to fall back to."""
    first, *others = map(model, chain)
    return FallbackModel(first, *others) if others else first


models = {role: role_model(chain) for role, chain in experiment.roles.items()}


def ask(role: str, prompt: str) -> str:
    """Ask a role's providers."""
    request = model_request(models[role], [ModelRequest.user_text_prompt(prompt)])
    return asyncio.run_coroutine_threadsafe(request, loop).result().text or ""


app = app_for(experiment, ask)

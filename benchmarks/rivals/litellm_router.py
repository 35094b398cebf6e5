"""
LiteLLM's Router with its state in Redis.

A role is a model group with one deployment, the rest of its chain are fallbacks:
https://docs.litellm.ai/docs/router/learn/reliability. Where nothing is said about retries,
cooldowns and failures allowed, LiteLLM's defaults hold.
"""

import os
from collections.abc import Callable
from typing import Any

# Prices from the package: on import it would ask GitHub for them.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from litellm import Router

from benchmarks.rivals.experiment import MAX_TOKENS, Experiment, Target

PROVIDERS = {"anthropic": "anthropic", "openai": "openai", "google": "gemini"}
PATHS = {"anthropic": "", "openai": "/v1", "google": "/v1beta"}
"""What follows our base URL in LiteLLM's `api_base`."""


def router(experiment: Experiment, **tuning: Any) -> Router:
    """Return a router over every provider."""
    return Router(
        model_list=[_deployment(experiment, target) for target in experiment.targets.values()],
        fallbacks=[
            {chain[0].name: [target.name for target in chain[1:]]}
            for chain in experiment.roles.values()
            if len(chain) > 1
        ],
        redis_url=experiment.redis_url,
        **tuning,
    )


def _deployment(experiment: Experiment, target: Target) -> dict[str, Any]:
    return {
        "model_name": target.name,
        "litellm_params": {
            "model": f"{PROVIDERS[target.adapter]}/{target.model}",
            "api_base": target.base_url + PATHS[target.adapter],
            "api_key": "none",
            "timeout": experiment.timeout_s,
            "max_tokens": MAX_TOKENS,
        },
    }


def asking(experiment: Experiment, **tuning: Any) -> Callable[[str, str], str]:
    """Return what asks a role's providers."""
    routes = router(experiment, **tuning)

    def ask(role: str, prompt: str) -> str:
        group = experiment.roles[role][0].name
        answer = routes.completion(model=group, messages=[{"role": "user", "content": prompt}])
        return answer.choices[0].message.content or ""

    return ask

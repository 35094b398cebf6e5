"""
LangChain's chat models with fallbacks.

https://docs.langchain.com/oss/python/langchain/models and `Runnable.with_fallbacks`; its own advice
is `max_retries=0` where there are fallbacks, as the wrapper would otherwise be called only after
all retries, so both are measured.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.rivals.experiment import MAX_TOKENS, Experiment, Target


def asking(experiment: Experiment, **retries: int) -> Callable[[str, str], str]:
    """Return what asks a role's providers."""
    models = {
        name: _model(experiment, target, retries) for name, target in experiment.targets.items()
    }
    chains = {}
    for role, (first, *others) in experiment.roles.items():
        fallbacks = [models[target.name] for target in others]
        model = models[first.name]
        chains[role] = model.with_fallbacks(fallbacks) if fallbacks else model

    def ask(role: str, prompt: str) -> str:
        return str(chains[role].invoke(prompt).text)

    return ask


def _model(experiment: Experiment, target: Target, retries: dict[str, int]) -> Any:
    common: dict[str, Any] = {"timeout": experiment.timeout_s, "max_tokens": MAX_TOKENS, **retries}
    common |= {"model": target.model, "api_key": "none"}
    if target.adapter == "anthropic":
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic(base_url=target.base_url, **common)
    if target.adapter == "openai":
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(base_url=f"{target.base_url}/v1", use_responses_api=True, **common)
    from langchain_google_genai import ChatGoogleGenerativeAI

    return ChatGoogleGenerativeAI(base_url=target.base_url, **common)

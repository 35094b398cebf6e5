"""
The official SDKs as their READMEs use them, and the loop that one writes by hand around them.

The SDKs repeat a failed call twice by themselves; whoever has a second provider asks it then.
Connections are the one thing that is not stock: as many as there are calls at once, since
google-genai has 100 and queues the rest.
"""

from collections.abc import Callable

import httpx2

from benchmarks.rivals.experiment import MAX_TOKENS, Experiment, Target

Ask = Callable[[str], str]
Asker = tuple[Ask, type[Exception]]
"""What asks one provider, and what it raises when it fails."""


def asking(experiment: Experiment) -> Callable[[str, str], str]:
    """Return what asks a role's providers one after the other."""
    makers = {"anthropic": _anthropic, "openai": _openai, "google": _google}
    askers = {
        name: makers[target.adapter](experiment, target)
        for name, target in experiment.targets.items()
    }

    def ask(role: str, prompt: str) -> str:
        *others, last = (askers[target.name] for target in experiment.roles[role])
        for ask_it, failed in others:
            try:
                return ask_it(prompt)
            except (failed, httpx2.HTTPError):  # google-genai lets those of the transport through
                continue
        return last[0](prompt)

    return ask


def _limits(experiment: Experiment, keep_alive: int) -> httpx2.Limits:
    return httpx2.Limits(
        max_connections=max(1000, experiment.concurrency), max_keepalive_connections=keep_alive
    )


def _anthropic(experiment: Experiment, target: Target) -> Asker:
    import anthropic

    http = anthropic.DefaultHttpxClient(limits=_limits(experiment, 100))
    client = anthropic.Anthropic(
        api_key="none", base_url=target.base_url, timeout=experiment.timeout_s, http_client=http
    )

    def ask(prompt: str) -> str:
        message = client.messages.create(
            model=target.model,
            max_tokens=MAX_TOKENS,
            messages=[{"role": "user", "content": prompt}],
        )
        return "".join(block.text for block in message.content if block.type == "text")

    return ask, anthropic.APIError


def _openai(experiment: Experiment, target: Target) -> Asker:
    import openai

    http = openai.DefaultHttpxClient(limits=_limits(experiment, 100))
    client = openai.OpenAI(
        api_key="none",
        base_url=f"{target.base_url}/v1",
        timeout=experiment.timeout_s,
        http_client=http,
    )

    def ask(prompt: str) -> str:
        answer = client.responses.create(
            model=target.model, input=prompt, max_output_tokens=MAX_TOKENS
        )
        return answer.output_text

    return ask, openai.APIError


def _google(experiment: Experiment, target: Target) -> Asker:
    from google import genai
    from google.genai import errors, types

    options = types.HttpOptions(
        base_url=target.base_url,
        timeout=round(experiment.timeout_s * 1000),
        client_args={"limits": _limits(experiment, 20)},
    )
    client = genai.Client(api_key="none", http_options=options)
    config = types.GenerateContentConfig(max_output_tokens=MAX_TOKENS)

    def ask(prompt: str) -> str:
        answer = client.models.generate_content(model=target.model, contents=prompt, config=config)
        return answer.text or ""

    return ask, errors.APIError

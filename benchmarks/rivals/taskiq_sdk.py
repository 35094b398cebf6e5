"""
taskiq around the asynchronous SDKs: the asyncio way.

A stream with acknowledgements and results in Redis, as https://github.com/taskiq-python/taskiq-redis
shows; `--max-async-tasks` is the calls at once. `consumer_id="0"`: what was enqueued before the
worker started counts too.
"""

import time
from collections.abc import Awaitable, Callable

import httpx2
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.rivals.experiment import MAX_TOKENS, Experiment, Target

Ask = Callable[[str], Awaitable[str]]
Asker = tuple[Ask, type[Exception]]
"""What asks one provider, and what it raises when it fails."""

experiment = Experiment.read()
broker = RedisStreamBroker(experiment.redis_url, consumer_id="0").with_result_backend(
    RedisAsyncResultBackend(
        experiment.redis_url, result_ex_time=24 * 3600, serializer=JSONSerializer()
    )
)
limits = httpx2.Limits(
    max_connections=max(1000, experiment.concurrency), max_keepalive_connections=100
)


@broker.task
async def ask(role: str, prompt: str) -> dict[str, str | float]:
    """Ask a role's providers; the result says when, which taskiq does not keep."""
    return {"text": await _text(role, prompt), "done_at": time.time()}


async def _text(role: str, prompt: str) -> str:
    """Ask a role's providers one after the other."""
    *others, last = (askers[target.name] for target in experiment.roles[role])
    for ask_it, failed in others:
        try:
            return await ask_it(prompt)
        except (failed, httpx2.HTTPError):  # google-genai lets those of the transport through
            continue
    return await last[0](prompt)


def _anthropic(target: Target) -> Asker:
    import anthropic

    http = anthropic.DefaultAsyncHttpxClient(limits=limits)
    client = anthropic.AsyncAnthropic(
        api_key="none", base_url=target.base_url, timeout=experiment.timeout_s, http_client=http
    )

    async def ask_it(prompt: str) -> str:
        message = await client.messages.create(
            model=target.model,
            max_tokens=MAX_TOKENS,
            messages=[{"role": "user", "content": prompt}],
        )
        return "".join(block.text for block in message.content if block.type == "text")

    return ask_it, anthropic.APIError


def _openai(target: Target) -> Asker:
    import openai

    http = openai.DefaultAsyncHttpxClient(limits=limits)
    client = openai.AsyncOpenAI(
        api_key="none",
        base_url=f"{target.base_url}/v1",
        timeout=experiment.timeout_s,
        http_client=http,
    )

    async def ask_it(prompt: str) -> str:
        answer = await client.responses.create(
            model=target.model, input=prompt, max_output_tokens=MAX_TOKENS
        )
        return answer.output_text

    return ask_it, openai.APIError


def _google(target: Target) -> Asker:
    from google import genai
    from google.genai import errors, types

    options = types.HttpOptions(
        base_url=target.base_url,
        timeout=round(experiment.timeout_s * 1000),
        async_client_args={"limits": limits},
    )
    client = genai.Client(api_key="none", http_options=options)
    config = types.GenerateContentConfig(max_output_tokens=MAX_TOKENS)

    async def ask_it(prompt: str) -> str:
        answer = await client.aio.models.generate_content(
            model=target.model, contents=prompt, config=config
        )
        return answer.text or ""

    return ask_it, errors.APIError


_makers = {"anthropic": _anthropic, "openai": _openai, "google": _google}
askers = {name: _makers[target.adapter](target) for name, target in experiment.targets.items()}

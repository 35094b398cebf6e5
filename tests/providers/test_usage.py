"""How each vendor counts: what we make of it, and what it costs."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakwater.attempt import UNCOUNTED, Usage
from tasks.config import ProviderSettings, Settings
from tasks.ledger.prices import PriceList
from tasks.providers import anthropic, google
from tasks.providers.openai_forms import read_usage
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import answer_of, request

PRICED = {
    "input_tokens": Decimal(1), "output_tokens": Decimal(2),
    "cached_input_tokens": Decimal("0.1"), "cache_write_tokens": Decimal("1.25"),
}  # fmt: skip
PRICES = PriceList(
    Settings({"p": ProviderSettings("p", "openai-chat", "m", prices={"*": PRICED})}, {})
)


def cost_of(usage: Usage) -> Decimal | None:
    return PRICES.cost("p", ("m",), usage, 1).usd


def chat(prompt: Any, completion: Any, total: Any = None, **more: Any) -> dict[str, Any]:
    said = {"prompt_tokens": prompt, "completion_tokens": completion, **more}
    return said if total is None else {**said, "total_tokens": total}


def prompt_details(**counts: Any) -> dict[str, Any]:
    return {"prompt_tokens_details": counts}


def reasoning(tokens: Any) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": tokens}}


CASES = {
    "OpenAI, plain": (chat(10, 4, 14), Usage(10, 4)),
    "OpenAI, cached and reasoning": (
        chat(2006, 300, 2306, **prompt_details(cached_tokens=1920), **reasoning(200)),
        Usage(2006, 300, 1920, 0, 200),
    ),
    "OpenAI, a cache written": (
        chat(2006, 300, 2306, **prompt_details(cached_tokens=0, cache_write_tokens=1500)),
        Usage(2006, 300, 0, 1500),
    ),
    "OpenAI, Responses": (
        {
            "input_tokens": 125, "output_tokens": 48, "total_tokens": 173,
            "input_tokens_details": {"cached_tokens": 98},
            "output_tokens_details": {"reasoning_tokens": 12},
        },
        Usage(125, 48, 98, 0, 12),
    ),
    "OpenAI, reasoning alone": (chat(10, 300, 310, **reasoning(300)), Usage(10, 300, 0, 0, 300)),
    "xAI, reasoning beside": (chat(10, 4, 314, **reasoning(300)), Usage(10, 304, 0, 0, 300)),
    "xAI, reasoning beside and smaller": (
        chat(2640, 182, 3494, **prompt_details(cached_tokens=473), **reasoning(672)),
        Usage(2640, 854, 473, 0, 672),
    ),
    "xAI, fewer reasoned than said": (chat(10, 40, 70, **reasoning(20)), Usage(10, 60, 0, 0, 20)),
    "xAI, without a total": (chat(10, 4, **reasoning(300)), Usage(10, 304, 0, 0, 300)),
    "xAI, Responses": (
        {"input_tokens": 125, "output_tokens": 48, "total_tokens": 973,
         "output_tokens_details": {"reasoning_tokens": 800}},
        Usage(125, 848, 0, 0, 800),
    ),
    "Gemini's compatible endpoint": (chat(7, 20, 127, **reasoning(100)), Usage(7, 120, 0, 0, 100)),
    "DeepSeek": (
        chat(100, 5, 105, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36), Usage(100, 5, 64)
    ),
    "DeepSeek, without the sum": (
        {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36, "completion_tokens": 5},
        Usage(100, 5, 64),
    ),
    "DeepSeek, both ways": (
        chat(100, 5, 105, prompt_cache_hit_tokens=64, **prompt_details(cached_tokens=64)),
        Usage(100, 5, 64),
    ),
    "Moonshot": (chat(19, 21, 40, cached_tokens=10), Usage(19, 21, 10)),
    "Mistral": (chat(50, 5, 55, num_cached_tokens=32), Usage(50, 5, 32)),
    "Mistral, misspelt": (
        chat(50, 5, 55, prompt_token_details={"cached_tokens": 32}), Usage(50, 5, 32)
    ),
    "Qwen, a cache written": (
        chat(3019, 104, 3123, **prompt_details(cached_tokens=0, cache_creation_input_tokens=2048)),
        Usage(3019, 104, 0, 2048),
    ),
    "OpenRouter": (
        chat(194, 2, 196, cost=0.95, cost_details={"upstream_inference_cost": 19}, **reasoning(0),
             **prompt_details(cached_tokens=0, cache_write_tokens=100, audio_tokens=0)),
        Usage(194, 2, 0, 100),
    ),
    "OpenRouter, more reasoned than said": (
        chat(10, 40, 50, **reasoning(44)), Usage(10, 40, 0, 0, None)
    ),
    "Groq": (chat(18, 556, 574, queue_time=0.03, prompt_time=0.001, total_time=0.4), Usage(18, 556)),
    "Perplexity": (
        chat(33, 7163, 7196, citation_tokens=20016, num_search_queries=18, reasoning_tokens=500),
        Usage(33, 7163, 0, 0, 500),
    ),
    "vLLM": (chat(22, 240, 262, prompt_tokens_details=None), Usage(22, 240)),
    "vLLM, cached": (chat(22, 240, 262, **prompt_details(cached_tokens=16)), Usage(22, 240, 16)),
    "SGLang": (chat(22, 24, 46, reasoning_tokens=9), Usage(22, 24, 0, 0, 9)),
    "llama.cpp, Ollama": (chat(12, 8, 20), Usage(12, 8)),
    "LiteLLM, Anthropic's names": (
        chat(2100, 5, 2105, cache_read_input_tokens=2000, cache_creation_input_tokens=50),
        Usage(2100, 5, 2000, 50),
    ),
    "a gateway, cached beside by its total": (
        chat(100, 5, 165, **prompt_details(cached_tokens=60)), Usage(160, 5, 60)
    ),
    "a gateway, cached beside without a total": (
        chat(10, 2, **prompt_details(cached_tokens=100)), Usage(110, 2, 100)
    ),
    "a gateway, all beside": (
        chat(10, 2, 142, **prompt_details(cached_tokens=100), **reasoning(30)),
        Usage(110, 32, 100, 0, 30),
    ),
    "a gateway that contradicts itself": (
        chat(10, 2, 12, **prompt_details(cached_tokens=100)), Usage(10, 2, None, None)
    ),
    "a total that nothing explains": (
        chat(100, 20, 999, **prompt_details(cached_tokens=60), **reasoning(5)),
        Usage(100, 20, 60, 0, 5),
    ),
    "a total of zero": (chat(100, 20, 0), Usage(100, 20)),
    "half of it": (chat(100, None), Usage(100, None)),
    "half of it, and too much cached": (
        chat(10, None, **prompt_details(cached_tokens=100)), Usage(10, None, None, None)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "usage"), CASES.values(), ids=CASES.keys())
def test_each_way_of_counting_is_read(sent: dict[str, Any], usage: Usage) -> None:
    """Input counts all input, output all that is billed as output."""
    assert read_usage(sent) == usage


def test_a_cost_follows_the_counts() -> None:
    """At 1 and 2 dollars a million, 0.1 for cached and 1.25 for written input."""
    costs = {name: cost_of(usage) for name, (_, usage) in CASES.items()}

    assert costs["xAI, reasoning beside"] == Decimal("0.000618")
    assert costs["a gateway, cached beside without a total"] == Decimal("0.000024")
    assert costs["OpenRouter, more reasoned than said"] == Decimal("0.00009")
    assert costs["a gateway that contradicts itself"] is None
    assert costs["half of it"] is None


def gemini(**counts: Any) -> Usage:
    return google._read_usage({f"{name}TokenCount": value for name, value in counts.items()})


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (gemini(prompt=10, candidates=4, thoughts=300, total=314), Usage(10, 304, 0, 0, 300)),
        (gemini(prompt=10, candidates=304, thoughts=300, total=314), Usage(10, 304, 0, 0, 300)),
        (gemini(prompt=10, candidates=304, thoughts=300), Usage(10, 604, 0, 0, 300)),
        (gemini(prompt=100, cachedContent=64, candidates=4, total=104), Usage(100, 4, 64)),
        (gemini(prompt=10, toolUsePrompt=5, candidates=4, total=19), Usage(15, 4)),
        (gemini(prompt=10, cachedContent=64, candidates=4, total=14), Usage(10, 4, None, None)),
        (gemini(prompt=10, thoughts=9, total=19), Usage(10, 9, 0, 0, 9)),
    ],
)
def test_gemini_counts_thoughts_beside_what_it_says(usage: Usage, expected: Usage) -> None:
    """Unless its own total says otherwise."""
    assert usage == expected


def test_anthropic_counts_what_is_cached_beside_the_input() -> None:
    """Both what is read and what is written."""
    said = {
        "input_tokens": 21, "cache_read_input_tokens": 188_086, "cache_creation_input_tokens": 13,
        "output_tokens": 393, "output_tokens_details": {"thinking_tokens": 100},
    }  # fmt: skip

    assert anthropic._read_usage(said) == Usage(188_120, 393, 188_086, 13, 100)
    assert anthropic._read_usage({**said, "output_tokens": 3}) == Usage(
        188_120, 3, 188_086, 13, None
    )


@pytest.mark.parametrize(
    ("zeros", "expected"),
    [
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, UNCOUNTED),
        ({"prompt_tokens": 7, "completion_tokens": 0}, Usage(7, None)),
        ({"prompt_tokens": 0, "completion_tokens": 7}, Usage(None, 7)),
        ({"prompt_tokens": 0, "completion_tokens": None}, UNCOUNTED),
    ],
)
def test_zeros_beside_an_answer_are_no_counts(
    zeros: dict[str, Any], expected: Usage, server: Loopback, build: Build
) -> None:
    """Servers that do not count send them; the call was not free for it."""
    server.answer(answer_of("openai-chat") | {"usage": zeros})

    completion = build("openai-chat", server.url).complete(request())

    assert completion.usage == expected
    assert cost_of(completion.usage) is None


NUMBERS = st.one_of(
    st.integers(0, 50), st.integers(), st.none(), st.floats(), st.booleans(), st.text(max_size=3)
)
KEYS = (
    "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens",
    "prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "num_cached_tokens", "reasoning_tokens",
    "cache_read_input_tokens", "cache_creation_input_tokens", "cache_write_tokens", "thinking_tokens",
    "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount",
    "cachedContentTokenCount", "toolUsePromptTokenCount",
)  # fmt: skip
DETAILS = (
    "prompt_tokens_details", "completion_tokens_details", "input_tokens_details",
    "output_tokens_details", "prompt_token_details",
)  # fmt: skip
COUNTS = st.dictionaries(st.sampled_from(KEYS), NUMBERS)
USAGES = st.tuples(
    COUNTS, st.dictionaries(st.sampled_from(DETAILS), st.one_of(COUNTS, NUMBERS))
).map(lambda both: both[0] | both[1])


@settings(max_examples=300, deadline=None)
@given(USAGES)
def test_no_usage_makes_a_negative_cost_or_an_error(used: dict[str, Any]) -> None:
    """Every count is unknown, or within bounds; parts are within their wholes."""
    for usage in (read_usage(used), anthropic._read_usage(used), google._read_usage(used)):
        known = {name: value for name, value in usage.as_dict().items() if value is not None}
        assert all(type(value) is int and value >= 0 for value in known.values())
        if usage.input_tokens is not None:
            parts = (usage.cached_input_tokens or 0) + (usage.cache_write_tokens or 0)
            assert parts <= usage.input_tokens
        if usage.output_tokens is not None:
            assert (usage.reasoning_tokens or 0) <= usage.output_tokens
        cost = cost_of(usage)
        assert cost is None or cost >= 0
        assert (usage != UNCOUNTED) or cost is None

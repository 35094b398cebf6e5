"""
How each vendor counts tokens: where a count stands, and which counts include which.

| who | cached input | written to a cache | reasoning |
|---|---|---|---|
| OpenAI, Azure, Groq, vLLM, SGLang, Qwen | in the prompt | in the prompt | in the completion |
| OpenRouter | in the prompt, native tokens | in the prompt | in the completion |
| DeepSeek | in the prompt: hit + miss | no | in the completion |
| Moonshot, Together | in the prompt, at the top of `usage` | no | in the completion |
| Mistral | in the prompt, under three names | no | in the completion |
| xAI, Gemini's compatible endpoint | in the prompt | no | beside the completion |
| Anthropic | beside the input | beside the input | in the output |
| Gemini | in the prompt | no | beside the candidates |
| LiteLLM and other gateways | as the vendor's, or beside the prompt | likewise | as the vendor's |
| llama.cpp, Ollama | not sent, or as OpenAI's | no | in the completion |

`docs/ledger.md` has the sources. No answer states which of these rows applies, so the server's own
total decides where it sent one: the right sum shows how the server counts.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from breakwater.attempt import UNCOUNTED, Usage
from tasks.providers.token_counts import read_count, read_part, sum_counts

INPUT_NAMES = ("prompt_tokens", "input_tokens")
OUTPUT_NAMES = ("completion_tokens", "output_tokens")
"""The name of a count in Chat Completions, then in Responses; some servers mix them up."""
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "prompt_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
CACHED = (
    *((name, "cached_tokens") for name in _INPUT_DETAILS),  # OpenAI and most others
    ("", "prompt_cache_hit_tokens"),  # DeepSeek
    ("", "cached_tokens"),  # Moonshot, Together
    ("", "num_cached_tokens"),  # Mistral
    ("", "cache_read_input_tokens"),  # LiteLLM in front of Anthropic
)
WRITTEN = (
    *((name, "cache_write_tokens") for name in _INPUT_DETAILS),  # OpenAI, OpenRouter
    *((name, "cache_creation_tokens") for name in _INPUT_DETAILS),  # LiteLLM
    *((name, "cache_creation_input_tokens") for name in _INPUT_DETAILS),  # Qwen
    ("", "cache_creation_input_tokens"),  # LiteLLM in front of Anthropic
)
REASONED = (
    *((name, "reasoning_tokens") for name in _OUTPUT_DETAILS),
    ("", "reasoning_tokens"),  # Perplexity, some gateways
)


class Counts(NamedTuple):
    """Counts as they were sent; None for an unknown one."""

    input_tokens: int | None
    output_tokens: int | None
    cached: int | None = 0
    written: int | None = 0
    reasoning: int | None = 0
    total: int | None = None


def openai_usage(used: Mapping[str, object]) -> Usage:
    """Read the `usage` of Chat Completions or Responses, from any server."""
    input_tokens = read_count(used, *INPUT_NAMES)
    if input_tokens is None and used.keys().isdisjoint(INPUT_NAMES):
        input_tokens = sum_counts(  # DeepSeek's parts of a count that it left out
            read_count(used, "prompt_cache_hit_tokens"),
            read_count(used, "prompt_cache_miss_tokens"),
        )
    return to_usage(
        Counts(
            input_tokens,
            read_count(used, *OUTPUT_NAMES),
            _first(used, CACHED),
            _first(used, WRITTEN),
            _first(used, REASONED),
            read_count(used, "total_tokens"),
        )
    )


def to_usage(counts: Counts, *, is_reasoning_beside: bool = False) -> Usage:
    """
    Decide which counts include which; return all input and all output, as we count.

    A part that fits into its whole is included in it, and one that does not fit stands beside it,
    unless the total shows otherwise. A total that nothing explains is ignored. Where a total says
    that a part is included that does not fit, the part is unknown.

    Args:
        is_reasoning_beside: The vendor documents that reasoning stands beside the output, even
            where it would fit into it.
    """
    input_tokens, output_tokens, cached, written, reasoning, total = counts
    if input_tokens is None or output_tokens is None:
        return _in_doubt(counts)
    if cached is None or written is None or reasoning is None:
        return _in_doubt(counts)
    stored = cached + written
    outputs = [output_tokens, output_tokens + reasoning]
    if is_reasoning_beside:
        outputs.reverse()
    # Most answers are done here: everything fits, and the total is as expected, or missing.
    fits = stored <= input_tokens and reasoning <= outputs[0]
    if fits and total in (None, input_tokens + outputs[0]):
        return Usage(input_tokens, outputs[0], cached, written, reasoning)
    ways = product([input_tokens, input_tokens + stored], outputs)
    fitting = [way for way in ways if stored <= way[0] and reasoning <= way[1]]
    explained = [way for way in fitting if sum(way) == total]
    if not explained and input_tokens + output_tokens == total:
        return _in_doubt(counts)  # a part is included, by the total, that does not fit
    whole_input, whole_output = (explained or fitting)[0]
    return Usage(whole_input, whole_output, cached, written, reasoning)


def without_zero_counts(usage: Usage) -> Usage:
    """
    Return the usage of an answer that has content, with counts of zero as unknown.

    Every prompt and every answer has tokens: servers that do not count send zeros, too.
    """
    if usage.input_tokens and usage.output_tokens:
        return usage
    if not usage.input_tokens and not usage.output_tokens:
        return UNCOUNTED
    return replace(
        usage, input_tokens=usage.input_tokens or None, output_tokens=usage.output_tokens or None
    )


def _in_doubt(counts: Counts) -> Usage:
    """Return the counts; parts that do not fit into a known whole are unknown."""
    input_tokens, output_tokens, cached, written, reasoning, _ = counts
    if input_tokens is not None and (cached or 0) + (written or 0) > input_tokens:
        cached = written = None
    if output_tokens is not None and reasoning is not None and reasoning > output_tokens:
        reasoning = None
    return Usage(input_tokens, output_tokens, cached, written, reasoning)


def _first(used: Mapping[str, object], places: tuple[tuple[str, str], ...]) -> int | None:
    """Read the first of these counts that is not null; 0 if there is none."""
    for outer, name in places:
        holder = used
        if outer:
            details = used.get(outer)
            if not isinstance(details, dict):
                continue
            holder = details
        if holder.get(name) is not None:
            return read_part(holder, name)
    return 0

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
| llama.cpp, Ollama | not said, or as OpenAI's | no | in the completion |

`docs/ledger.md` has the sources. Nobody says in an answer which of these holds, so the server's own
total decides where it sent one: what makes the sum right is how it counts.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from breakwater.attempt import UNCOUNTED, Usage
from tasks.providers.token_counts import object_at, read_count, read_part

INPUT_NAMES = ("prompt_tokens", "input_tokens")
OUTPUT_NAMES = ("completion_tokens", "output_tokens")
"""Chat Completions' name of a count, then Responses'; some servers mix them up."""
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
    """Counts as they were sent; None where one is unknown."""

    input_tokens: int | None
    output_tokens: int | None
    cached: int | None = 0
    written: int | None = 0
    reasoning: int | None = 0
    total: int | None = None


def openai_usage(used: Mapping[str, Any]) -> Usage:
    """Read the `usage` of Chat Completions or Responses, of whichever server."""
    input_tokens = read_count(used, *INPUT_NAMES)
    if (
        input_tokens is None
        and "prompt_cache_hit_tokens" in used
        and not used.keys() & {*INPUT_NAMES}
    ):
        parts = [read_count(used, f"prompt_cache_{each}_tokens") for each in ("hit", "miss")]
        input_tokens = None if None in parts else sum(each or 0 for each in parts)
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
    Decide which counts include which, and return them as ours: all input, and all output.

    Without a total, or with one that nothing explains, a part that fits into its whole is in it,
    and one that does not is beside it; where the total contradicts that, the part is unknown.

    Args:
        is_reasoning_beside: The vendor documents it so, whatever would fit.
    """
    input_tokens, output_tokens, cached, written, reasoning, total = counts
    if (
        input_tokens is None
        or output_tokens is None
        or cached is None
        or written is None
        or reasoning is None
    ):
        return _in_doubt(counts)
    stored = cached + written
    ways = [
        (input_tokens + stored * beside_asked, output_tokens + reasoning * beside_answered)
        for beside_asked, beside_answered in product(
            (False, True), (True, False) if is_reasoning_beside else (False, True)
        )
    ]
    fitting = [way for way in ways if stored <= way[0] and reasoning <= way[1]]
    explained = next((way for way in fitting if sum(way) == total), None)
    if explained is None and total is not None and input_tokens + output_tokens == total:
        return _in_doubt(counts)  # it says that a part is in its whole, which it does not fit into
    whole_input, whole_output = explained or fitting[0]
    return Usage(whole_input, whole_output, cached, written, reasoning)


def without_zero_counts(usage: Usage) -> Usage:
    """
    Return the usage of an answer that says something, with counts of zero unknown.

    No prompt and no answer has no tokens: servers that do not count send zeros, too.
    """
    if usage.input_tokens and usage.output_tokens:
        return usage
    if not usage.input_tokens and not usage.output_tokens:
        return UNCOUNTED
    return replace(
        usage, input_tokens=usage.input_tokens or None, output_tokens=usage.output_tokens or None
    )


def _in_doubt(counts: Counts) -> Usage:
    """Return the counts with those parts unknown that do not fit into a whole that is known."""
    input_tokens, output_tokens, cached, written, reasoning, _ = counts
    if input_tokens is not None and (cached or 0) + (written or 0) > input_tokens:
        cached = written = None
    if output_tokens is not None and reasoning is not None and reasoning > output_tokens:
        reasoning = None
    return Usage(input_tokens, output_tokens, cached, written, reasoning)


def _first(used: Mapping[str, Any], places: tuple[tuple[str, str], ...]) -> int | None:
    """Read the first of these counts that is there and not null; 0 if none is."""
    for outer, name in places:
        holder = object_at(used, outer) if outer else used
        if holder.get(name) is not None:
            return read_part(holder, name)
    return 0

"""Token counts that are none: the answer is paid for and stays, and what it cost is not known."""

import json
from decimal import Decimal
from typing import Any

import pytest

from breakwater.attempt import UNCOUNTED
from tasks.config.settings import Settings
from tasks.ledger.prices import PriceList
from tasks.providers.base import Completion
from tests.providers.conftest import Answered
from tests.support.vendors import answer_of, settings_for

USAGE = {"google": "usageMetadata"}
OUTPUT = {
    "anthropic": "output_tokens", "openai": "output_tokens",
    "openai-chat": "completion_tokens", "google": "candidatesTokenCount",
}  # fmt: skip
INPUT = {
    "anthropic": "input_tokens", "openai": "input_tokens",
    "openai-chat": "prompt_tokens", "google": "promptTokenCount",
}  # fmt: skip
NO_COUNTS = [
    "null", '"2"', "2.0", "2.5", "NaN", "Infinity", "-1", "1e3", "99999999999999999999", "true", "{}",
    "[2]", '""',
]  # fmt: skip
PRICED = {"*": {"input_tokens": Decimal(1), "output_tokens": Decimal(2)}}


def cost_of(adapter: str, completion: Completion) -> Decimal | None:
    """Price an answer at one dollar and two a million."""
    settings = Settings({"p": settings_for(adapter, "", name="p", prices=PRICED)}, {})
    return PriceList(settings).cost("p", (completion.model,), completion.usage, 1).usd


def body(answer: dict[str, Any], **raw: str) -> bytes:
    """Write an answer as JSON; a value named here is written as it stands."""
    text = json.dumps(answer)
    for name, value in raw.items():
        text = text.replace(f'"<{name}>"', value)
    return text.encode()


@pytest.mark.parametrize("raw", NO_COUNTS)
def test_a_count_that_is_no_whole_number_is_unknown(
    raw: str, adapter: str, answered: Answered
) -> None:
    """Null, never 0; the other count stays, and the cost is unknown."""
    answer = answer_of(adapter)
    answer[USAGE.get(adapter, "usage")][OUTPUT[adapter]] = "<count>"

    completion = answered(adapter, body(answer, count=raw))

    assert completion.text == "hi"
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (3, None)
    assert cost_of(adapter, completion) is None


def test_a_count_that_is_missing_is_unknown(adapter: str, answered: Answered) -> None:
    """And what is there is kept."""
    answer = answer_of(adapter)
    del answer[USAGE.get(adapter, "usage")][OUTPUT[adapter]]

    completion = answered(adapter, answer)

    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (3, None)


@pytest.mark.parametrize("raw", ["null", "[]", '"none"', "7", "true", "{}", '{"counts": 5}'])
def test_a_usage_that_is_none_is_unknown(raw: str, adapter: str, answered: Answered) -> None:
    """An answer that nobody counted is not a free one."""
    answer = answer_of(adapter) | {USAGE.get(adapter, "usage"): "<usage>"}

    completion = answered(adapter, body(answer, usage=raw))

    assert (completion.text, completion.usage) == ("hi", UNCOUNTED)
    assert cost_of(adapter, completion) is None


@pytest.mark.parametrize("raw", ["null", "{}", "[]", '"none"', '{"cached_tokens": null}'])
@pytest.mark.parametrize("adapter", ["openai", "openai-chat"])
def test_a_breakdown_that_is_left_out_is_zero(raw: str, adapter: str, answered: Answered) -> None:
    """vLLM and LiteLLM send null; the plain counts hold, and so does the cost."""
    answer = answer_of(adapter)
    name = "input_tokens_details" if adapter == "openai" else "prompt_tokens_details"
    answer["usage"][name] = "<details>"

    completion = answered(adapter, body(answer, details=raw))

    assert completion.usage.cached_input_tokens == 0
    assert cost_of(adapter, completion) == Decimal("0.000013")


@pytest.mark.parametrize("raw", ['"2"', "2.0", "-1", "true"])
def test_a_broken_breakdown_is_unknown(raw: str, answered: Answered) -> None:
    """Cached tokens cost less, so the cost is unknown with them."""
    answer = answer_of("openai-chat")
    answer["usage"]["prompt_tokens_details"] = {"cached_tokens": "<count>"}

    completion = answered("openai-chat", body(answer, count=raw))

    assert (completion.usage.input_tokens, completion.usage.cached_input_tokens) == (3, None)
    assert cost_of("openai-chat", completion) is None


def test_anthropics_input_is_unknown_with_any_of_its_parts(answered: Answered) -> None:
    """It is the sum of three counts."""
    answer = answer_of("anthropic")
    answer["usage"] |= {"cache_read_input_tokens": "many"}

    usage = answered("anthropic", answer).usage

    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (None, None, 5)


def test_gemini_leaves_zeros_out(answered: Answered) -> None:
    """proto3's JSON does: the total tells such a zero from a count that is missing."""
    counts = {"promptTokenCount": 3, "thoughtsTokenCount": 9, "totalTokenCount": 12}

    usage = answered("google", answer_of("google") | {"usageMetadata": counts}).usage

    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (3, 9, 9)


def test_counts_in_the_other_apis_names_are_read(answered: Answered) -> None:
    """Some compatible servers send Responses' names in Chat Completions."""
    answer = answer_of("openai-chat")
    answer["usage"] = {
        "input_tokens": 3, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 4},
    }  # fmt: skip

    usage = answered("openai-chat", answer).usage

    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (3, 5, 4)

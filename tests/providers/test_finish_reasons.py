"""Finish reasons: what each word means, and that no other word means a whole answer."""

from typing import Any, get_args

import pytest
from anthropic.types import StopReason
from anthropic.types.beta import BetaStopReason
from google.genai.types import FinishReason
from openai.types.chat.chat_completion_chunk import Choice
from openai.types.responses import ResponseStatus
from openai.types.responses.response import IncompleteDetails

from breakwater import errors
from breakwater.errors import ProviderError
from tasks.providers.anthropic import AnthropicProvider
from tasks.providers.google import GoogleProvider
from tasks.providers.openai import OpenAIProvider
from tasks.providers.openai_chat import OpenAIChatProvider
from tests.providers.conftest import Answered
from tests.support.vendors import answer_of

GOING_ON = {"queued", "in_progress", "incomplete"}
"""Statuses that are no end: nothing is said of it yet, or elsewhere."""


def words_of(annotation: Any) -> set[str]:
    """Return the literals in a type."""
    return {word for part in get_args(annotation) for word in (get_args(part) or [part]) if part}


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (AnthropicProvider, words_of(StopReason) | words_of(BetaStopReason)),
        (GoogleProvider, {reason.value for reason in FinishReason}),
        (OpenAIChatProvider, words_of(Choice.model_fields["finish_reason"].annotation)),
        (OpenAIProvider, words_of(ResponseStatus) - GOING_ON),
        (OpenAIProvider, words_of(IncompleteDetails.model_fields["reason"].annotation)),
    ],
)
def test_the_tables_have_every_word_that_the_sdks_know(adapter: Any, words: set[str]) -> None:
    """A new version of an SDK that brings a word makes us decide what it means."""
    known = {word.lower() for word in words if isinstance(word, str)}

    assert len(known) > 1
    assert known <= adapter.FINISH.keys()


WORDS = [
    ("anthropic", "end_turn", "stop"),
    ("anthropic", "stop_sequence", "stop"),
    ("anthropic", "max_tokens", "length"),
    ("anthropic", "model_context_window_exceeded", "length"),
    ("anthropic", "refusal", "refusal"),
    ("anthropic", "pause_turn", errors.UnfinishedAnswer),
    ("anthropic", "compaction", errors.UnfinishedAnswer),
    ("anthropic", "guardrail_intervened", "content_filter"),  # Bedrock
    ("anthropic", "something_new", errors.UnfinishedAnswer),
    ("openai", "max_output_tokens", "length"),
    ("openai", "content_filter", "content_filter"),
    ("openai", "max_messages", errors.UnfinishedAnswer),
    ("openai", "steered", errors.UnfinishedAnswer),
    ("openai", "something_new", errors.UnfinishedAnswer),
    ("google", "STOP", "stop"),
    ("google", "MAX_TOKENS", "length"),
    ("google", "CONTINUATION", "length"),
    ("google", "IMAGE_PROHIBITED_CONTENT", "content_filter"),
    ("google", "IMAGE_RECITATION", "content_filter"),
    ("google", "TOO_MANY_TOOL_CALLS", errors.GarbledAnswer),
    ("google", "NO_IMAGE", errors.GarbledAnswer),
    ("google", "MISSING_THOUGHT_SIGNATURE", errors.UnsupportedInput),
    ("google", "PUP_LIMITED_DISABLED", errors.AuthenticationFailed),
    ("google", "FINISH_REASON_UNSPECIFIED", errors.UnfinishedAnswer),
    ("google", "SOMETHING_NEW", errors.UnfinishedAnswer),
    ("openai-chat", "stop", "stop"),
    ("openai-chat", "STOP", "stop"),
    ("openai-chat", "eos", "stop"),  # Together
    ("openai-chat", "eos_token", "stop"),  # Text Generation Inference
    ("openai-chat", "stop_sequence", "stop"),
    ("openai-chat", "end_turn", "stop"),  # xAI
    ("openai-chat", "COMPLETE", "stop"),  # Cohere
    ("openai-chat", "normal", "stop"),  # Qianfan
    ("openai-chat", "length", "length"),
    ("openai-chat", "max_tokens", "length"),
    ("openai-chat", "MAX_TOKENS", "length"),
    ("openai-chat", "model_length", "length"),  # Mistral
    ("openai-chat", "model_context_window_exceeded", "length"),  # Zhipu
    ("openai-chat", "content_filter", "content_filter"),
    ("openai-chat", "content_filter: RECITATION", "content_filter"),  # Gemini
    ("openai-chat", "sensitive", "content_filter"),  # Zhipu, Hunyuan
    ("openai-chat", "guardrail_intervened", "content_filter"),  # Bedrock
    ("openai-chat", "error", errors.ServerError),  # OpenRouter, Mistral
    ("openai-chat", "error: the engine died", errors.ServerError),  # Dynamo
    ("openai-chat", "network_error", errors.ServerError),  # Zhipu
    ("openai-chat", "insufficient_system_resource", errors.Overloaded),  # DeepSeek
    ("openai-chat", "abort", errors.TruncatedAnswer),  # vLLM, SGLang
    ("openai-chat", "aborted", errors.TruncatedAnswer),
    ("openai-chat", "cancelled", errors.TruncatedAnswer),  # Dynamo
    ("openai-chat", "function_call_filter: MALFORMED_FUNCTION_CALL", errors.GarbledAnswer),
    ("openai-chat", "repetition", errors.GarbledAnswer),
    ("openai-chat", "ERROR_TOXIC", "content_filter"),  # Cohere
    ("openai-chat", "ERROR_LIMIT", errors.ContextWindowExceeded),
    ("openai-chat", "load", errors.UnfinishedAnswer),  # Ollama: the model was only loaded
    ("openai-chat", "unknown", errors.UnfinishedAnswer),
    ("openai-chat", "other", errors.UnfinishedAnswer),
    ("openai-chat", "something_new", errors.UnfinishedAnswer),
]


@pytest.mark.parametrize(("adapter", "word", "meant"), WORDS)
def test_a_finish_reason_means_what_its_vendor_says(
    adapter: str, word: str, meant: str | type[ProviderError], answered: Answered
) -> None:
    """With text beside it, so that nothing but the word decides."""

    if isinstance(meant, str):
        assert (
            answered(adapter, answer_of(adapter, "The three steps are: 1.", word)).finish_reason
            == meant
        )
        return
    with pytest.raises(ProviderError) as caught:
        answered(adapter, answer_of(adapter, "The three steps are: 1.", word))

    assert type(caught.value) is meant
    assert word.partition(":")[0] in str(caught.value) or "may be more than a word" in str(
        caught.value
    )
    assert caught.value.usage == {
        "input_tokens": 3, "output_tokens": 5, "cached_input_tokens": 0, "cache_write_tokens": 0,
        "reasoning_tokens": 0,
    }  # fmt: skip


def test_an_unknown_word_is_nobodys_fault(answered: Answered) -> None:
    """No failure to the breaker, the next target is asked, and this one is not paid again."""

    with pytest.raises(
        errors.UnfinishedAnswer, match="'something_new': that word is unknown"
    ) as it:
        answered("openai-chat", answer_of("openai-chat", "half", "something_new"))

    verdict = it.value.verdict
    assert (verdict.trips, verdict.next_target, verdict.retryable_later) == (False, True, False)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("the prompt was: SECRET words, and many more of them than a word has", "a word of 67"),
        ("sk-ant-api03-abcdefghijklmnopqrstuvwx", "a word of 37 characters"),
        ("\x1b[31mred", "a word of 8 characters"),
        (13, "a value of type int"),
        (True, "a value of type bool"),
        ({"type": "stop"}, "a value of type dict"),
        (["stop"], "a value of type list"),
    ],
)
def test_what_is_no_word_is_not_quoted(reason: object, shown: str, answered: Answered) -> None:
    """It might be the prompt, a key, or what moves a terminal's cursor."""
    answer = answer_of("openai-chat", "half")
    answer["choices"][0]["finish_reason"] = reason

    with pytest.raises(errors.UnfinishedAnswer, match=shown) as caught:
        answered("openai-chat", answer)

    assert "SECRET" not in str(caught.value)

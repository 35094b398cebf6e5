"""Each wire format through the vendor's official SDK, plain and streamed."""

import hashlib
from collections.abc import Callable

import anthropic
import openai
import pytest

from simulator.client import Simulator
from simulator.wires import WIRES
from simulator.wires.base import ERROR_KINDS
from tests.support.vendor_sdks import CALLERS, MODEL, TOOL, Caller, status_of

Build = Callable[..., Caller]
FINISHES = {
    "anthropic": {
        "stop": "end_turn", "length": "max_tokens", "refusal": "refusal",
        "content_filter": "refusal", "tool_calls": "tool_use",
    },
    "openai": {
        "stop": "completed", "length": "max_output_tokens", "refusal": "completed",
        "content_filter": "content_filter", "tool_calls": "completed",
    },
    "openai-chat": {
        "stop": "stop", "length": "length", "refusal": "stop",
        "content_filter": "content_filter", "tool_calls": "tool_calls",
    },
    "google": {
        "stop": "STOP", "length": "MAX_TOKENS", "refusal": "SAFETY",
        "content_filter": "PROHIBITED_CONTENT", "tool_calls": "STOP",
    },
}  # fmt: skip
USAGE = {
    "input_tokens": 100, "output_tokens": 50, "cached_input_tokens": 60,
    "cache_write_tokens": 30, "reasoning_tokens": 20,
}  # fmt: skip


@pytest.mark.parametrize("way", ["said", "streamed"])
def test_an_answer_names_its_label_and_a_digest_of_the_prompt(
    sim: Simulator, call: Build, way: str
) -> None:
    """The same prompt gives the same text, another prompt another, and none shows the prompt."""
    prompt = "what is the meaning of canaries?"

    answer = getattr(call(), way)(prompt)

    assert answer.text == f"[it] answer to {hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


@pytest.mark.parametrize("way", ["said", "streamed"])
def test_an_answer_can_be_fixed_or_an_echo(sim: Simulator, call: Build, way: str) -> None:
    """`answer` sets the text; `echo` repeats the last user text."""
    caller = call()

    sim.settings("it", answer="for all the same words")
    fixed = getattr(caller, way)("one").text
    sim.settings("it", answer="echo")
    echo = getattr(caller, way)("two  words").text

    assert (fixed, echo) == ("for all the same words", "two  words")


@pytest.mark.parametrize("way", ["said", "streamed"])
@pytest.mark.parametrize("finish", FINISHES["anthropic"])
def test_every_finish_arrives_in_the_vendors_word(
    sim: Simulator, call: Build, wire: str, way: str, finish: str
) -> None:
    """`finish` sets the reason for which an answer ends."""
    sim.settings("it", finish=finish)

    answer = getattr(call(tools=True), way)("hello")

    assert answer.finish == FINISHES[wire][finish]
    assert answer.tool == (TOOL["name"] if finish == "tool_calls" else None)


@pytest.mark.parametrize("way", ["said", "streamed"])
def test_usage_arrives_in_the_vendors_fields(
    sim: Simulator, call: Build, wire: str, way: str
) -> None:
    """Input counts cached and written tokens, output reasoning, as each vendor splits them."""
    sim.settings("it", usage=USAGE)

    usage = getattr(call(), way)("hello").usage

    if wire == "anthropic":
        counts = (
            usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens,
            usage.output_tokens, usage.output_tokens_details.thinking_tokens,
        )  # fmt: skip
        assert counts == (10, 60, 30, 50, 20)
    elif wire == "openai":
        details = usage.input_tokens_details
        assert (usage.input_tokens, details.cached_tokens, details.cache_write_tokens) == (
            100,
            60,
            30,
        )
        assert (usage.output_tokens, usage.output_tokens_details.reasoning_tokens) == (50, 20)
    elif wire == "openai-chat":
        details = usage.prompt_tokens_details
        assert (usage.prompt_tokens, details.cached_tokens, details.cache_write_tokens) == (
            100,
            60,
            30,
        )
        assert (usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens) == (
            50,
            20,
        )
    else:
        assert (usage.prompt_token_count, usage.cached_content_token_count) == (100, 60)
        assert (usage.candidates_token_count, usage.thoughts_token_count) == (30, 20)


def test_the_models_list_answers_and_is_logged_as_such(
    sim: Simulator, call: Build, wire: str
) -> None:
    """SDKs check a key by listing models; the log tells these calls from the others."""
    sim.settings("it", models=["m-1"])

    names = call().models()

    assert names == ["models/m-1" if wire == "google" else "m-1"]
    (hit,) = sim.hits("it")
    assert hit["call"] == "models"


def test_an_unknown_model_is_refused_once_models_are_set(sim: Simulator, call: Build) -> None:
    """With `models` set, all others are 404, as the vendor says it."""
    sim.settings("it", models=["another"])

    with pytest.raises(Exception, match=MODEL) as refused:
        call().said("hello")

    assert status_of(refused.value) == 404


def test_a_wrong_key_is_refused_in_the_vendors_words(
    sim: Simulator, call: Build, wire: str
) -> None:
    """With `keys` set, another key gets the vendor's own error: 400 at Google, 401 elsewhere."""
    sim.settings("it", keys=["another-key"])
    caller = call()

    for ask in (lambda: caller.said("hello"), caller.models):
        with pytest.raises(Exception, match=r"(?i)key") as refused:
            ask()

        assert status_of(refused.value) == (400 if wire == "google" else 401)


def test_requests_a_vendor_would_refuse_are_refused(sim: Simulator) -> None:
    """Anthropic's newest API takes no temperature; Responses takes no stop; both need messages."""
    claude = anthropic.Anthropic(api_key="k", base_url=sim.url("claude"), max_retries=0)
    gpt = openai.OpenAI(api_key="k", base_url=f"{sim.url('gpt')}/v1", max_retries=0)

    with pytest.raises(anthropic.BadRequestError, match="temperature: Extra inputs"):
        claude.messages.create(
            model=MODEL,
            max_tokens=1,
            messages=[{"role": "user", "content": "x"}],
            extra_body={"temperature": 0},
        )
    with pytest.raises(anthropic.BadRequestError, match="at least one message"):
        claude.messages.create(model=MODEL, max_tokens=1, messages=[])
    with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'stop'"):
        gpt.responses.create(model=MODEL, input="x", extra_body={"stop": ["x"]})


def test_a_path_no_vendor_has_is_a_404(sim: Simulator) -> None:
    """Unknown paths get a vendor's 404, and are logged as unknown calls."""
    gpt = openai.OpenAI(api_key="k", base_url=f"{sim.url('gpt')}/v1", max_retries=0)

    with pytest.raises(openai.NotFoundError):
        gpt.embeddings.create(model=MODEL, input="x")

    assert [hit["call"] for hit in sim.hits("gpt")] == ["unknown"]


def test_request_ids_and_rate_limits_stand_in_the_vendors_headers(sim: Simulator) -> None:
    """The id in the header is the id in the log."""
    claude = anthropic.Anthropic(api_key="k", base_url=sim.url("claude"), max_retries=0)
    gpt = openai.OpenAI(api_key="k", base_url=f"{sim.url('gpt')}/v1", max_retries=0)

    raw = claude.messages.with_raw_response.create(
        model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "x"}]
    )
    response = gpt.responses.with_raw_response.create(model=MODEL, input="x")

    assert raw.headers["request-id"] == sim.hits("claude")[0]["request_id"]
    assert int(raw.headers["anthropic-ratelimit-requests-remaining"]) > 0
    assert response.headers["x-request-id"] == sim.hits("gpt")[0]["request_id"]
    assert int(response.headers["x-ratelimit-remaining-requests"]) > 0


def test_chat_usage_is_streamed_only_if_asked_for(sim: Simulator) -> None:
    """Without `stream_options.include_usage` no chunk has usage, as at OpenAI."""
    gpt = openai.OpenAI(api_key="k", base_url=f"{sim.url('gpt')}/v1", max_retries=0)

    chunks = gpt.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True
    )

    assert all(chunk.usage is None for chunk in chunks)


def test_every_wire_has_a_body_for_every_kind_of_error() -> None:
    """Google alone has no error for filtered content: it answers without candidates."""
    for wire in WIRES:
        missing = {"content_filtered"} if wire.name == "google" else set()
        assert wire.errors.keys() == ERROR_KINDS - missing

    assert {wire.name for wire in WIRES} == set(CALLERS)

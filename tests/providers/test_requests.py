"""What goes out: each vendor's request, from ours."""

import re
from importlib import metadata
from typing import Any

import anthropic
import openai
import pytest
from google.genai import types
from structlog.testing import capture_logs

from breakwater.calls.params import PARAMS
from breakwater.content import Message, Tool
from tasks.catalogue import spec_of
from tasks.providers.adapter import Adapter
from tasks.providers.base import Request
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import KEY, answer_of, request

ALL = {
    "max_output_tokens": 50, "temperature": 0.5, "top_p": 0.9,
    "stop": ["END"], "seed": 7, "reasoning_effort": "high",
}  # fmt: skip
TOOL = Tool("now")
TALK = [
    Message("system", "be kind"),
    Message("user", "one"),
    Message("assistant", "two"),
    Message("user", "three"),
]
SENT: dict[str, dict[str, Any]] = {
    "anthropic": {
        "model": "m-1", "system": "be brief\n\nbe kind",
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ],
        "max_tokens": 50, "stop_sequences": ["END"], "output_config": {"effort": "high"},
    },
    "openai": {
        "model": "m-1", "instructions": "be brief\n\nbe kind", "store": False,
        "input": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ],
        "max_output_tokens": 50, "temperature": 0.5, "top_p": 0.9, "reasoning": {"effort": "high"},
    },
    "openai-chat": {
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "be brief\n\nbe kind"},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ],
        "max_tokens": 50, "temperature": 0.5, "top_p": 0.9, "stop": ["END"], "seed": 7,
        "reasoning_effort": "high",
    },
    "google": {
        "systemInstruction": {"parts": [{"text": "be brief\n\nbe kind"}], "role": "user"},
        "contents": [
            {"role": "user", "parts": [{"text": "one"}]},
            {"role": "model", "parts": [{"text": "two"}]},
            {"role": "user", "parts": [{"text": "three"}]},
        ],
        "generationConfig": {
            "maxOutputTokens": 50, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"],
            # The SDK writes this name in snake case; protobuf's JSON takes both.
            "seed": 7, "thinkingConfig": {"thinking_level": "HIGH"},
        },
    },
}  # fmt: skip


def test_each_vendor_is_asked_in_its_own_words(
    adapter: str, server: Loopback, build: Build
) -> None:
    """The whole body: nothing of ours is lost, and nothing goes along that we did not say."""
    server.answer(answer_of(adapter))

    build(adapter, server.url).complete(Request(TALK, "m-1", "be brief", ALL))

    assert server.asked[0]["body"] == SENT[adapter]


def test_a_bare_prompt_sends_nothing_but_itself(
    adapter: str, server: Loopback, build: Build
) -> None:
    """No defaults of ours, but for the bound on which Anthropic insists."""
    server.answer(answer_of(adapter))

    build(adapter, server.url).complete(Request([Message("user", "one")], "m-1"))

    sent = server.asked[0]["body"]
    assert {
        "anthropic": {"model", "messages", "max_tokens"},
        "openai": {"model", "input", "store"},
        "openai-chat": {"model", "messages"},
        "google": {"contents"},
    }[adapter] == {name for name, value in sent.items() if value != {}}


def test_a_parameter_the_vendor_does_not_take_is_dropped_with_one_warning(
    adapter: str, server: Loopback, build: Build
) -> None:
    """One a provider and parameter, not one a call."""
    server.answer(answer_of(adapter))
    provider = build(adapter, server.url)

    with capture_logs() as logs:
        for _ in range(3):
            provider.complete(Request(TALK, "m-1", params=ALL))

    dropped = [entry["param"] for entry in logs if entry["event"] == "provider.param_dropped"]
    assert sorted(dropped) == sorted(spec_of(adapter).params_not_taken)
    assert all(entry["provider"] == f"my-{adapter}" for entry in logs)


def test_the_roles_file_and_the_adapters_know_the_same_parameters(
    adapter: str, server: Loopback, build: Build
) -> None:
    """What an adapter does not take is what validation calls so."""
    provider = build(adapter, server.url)

    assert isinstance(provider, Adapter)
    assert provider.PARAM_PATHS.keys() | spec_of(adapter).params_not_taken.keys() == PARAMS.keys()


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_every_effort_has_a_word_at_every_vendor(
    effort: str, adapter: str, server: Loopback, build: Build
) -> None:
    """The nearest it has."""
    server.answer(answer_of(adapter))

    build(adapter, server.url).complete(Request(TALK, "m-1", params={"reasoning_effort": effort}))

    sent = server.asked[0]["body"]
    path = {
        "anthropic": ("output_config", "effort"),
        "openai": ("reasoning", "effort"),
        "openai-chat": ("reasoning_effort",),
        "google": ("generationConfig", "thinkingConfig", "thinking_level"),
    }[adapter]
    for step in path:
        sent = sent[step]
    nearest = {
        ("anthropic", "none"): "low", ("anthropic", "minimal"): "low",
        ("google", "none"): "minimal", ("google", "max"): "xhigh",
    }  # fmt: skip
    assert sent.lower() == nearest.get((adapter, effort), effort)


MARK = {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("messages", "system", "tools", "marked"),
    [
        ([Message("user", "one")], "be brief", [TOOL], {"system"}),
        ([Message("user", "one")], None, [TOOL], {"tools"}),
        ([Message("user", "one")], None, [], set()),
        (TALK, None, [TOOL], {"system", "prompt"}),
    ],
)
def test_claude_is_told_to_cache_what_later_calls_begin_with(
    messages: list[Message], system: str | None, tools: list[Tool], marked: set[str],
    server: Loopback, build: Build,
) -> None:  # fmt: skip
    """The stable prefix; the prompt itself only where a next turn will begin with it."""
    server.answer(answer_of("anthropic"))
    provider = build("anthropic", server.url, prompt_cache=True)

    provider.complete(Request(messages, "m-1", system, tools=tools))

    sent = server.asked[0]["body"]
    found = {
        "system": [block["cache_control"] for block in sent.get("system", ())],
        "tools": [tool["cache_control"] for tool in sent.get("tools", ()) if len(tool) > 2],
        "prompt": [sent["cache_control"]] if "cache_control" in sent else [],
    }
    assert found == {name: [MARK] if name in marked else [] for name in found}


def test_openai_is_told_which_prompts_begin_alike(server: Loopback, build: Build) -> None:
    """A key for each stable prefix, which says nothing of it; none where nothing is stable."""
    server.answer(answer_of("openai"))
    provider = build("openai", server.url, prompt_cache=True)

    for system, tools in [("be brief", []), ("be brief", []), ("be long", []), (None, [TOOL])]:
        provider.complete(Request([Message("user", "one")], "m-1", system, tools=tools))
    provider.complete(Request([Message("user", "one")], "m-1"))

    keys = [asked["body"].get("prompt_cache_key") for asked in server.asked]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert keys[4] is None
    assert all(re.fullmatch(r"[0-9a-f]{32}", key) for key in keys[:4])


@pytest.mark.parametrize("adapter", ["openai", "openai-chat", "google"])
def test_nothing_is_said_of_caches_unless_asked_to(
    adapter: str, server: Loopback, build: Build
) -> None:
    """Nor does a compatible server get a word that only OpenAI knows."""
    server.answer(answer_of(adapter))
    asked = Request(TALK, "m-1", "be brief" * 3000)

    build(adapter, server.url).complete(asked)
    server.answer(answer_of("openai-chat"))
    build("openai-chat", server.url, prompt_cache=True).complete(asked)

    assert len(server.asked) == 2
    assert all("cache" not in str(one["body"]) for one in server.asked)


def test_openai_itself_is_asked_in_its_newer_words(server: Loopback, build: Build) -> None:
    """`max_completion_tokens`, which only OpenAI and Azure know, and nothing stored."""
    provider: Any = build("openai-chat", "https://api.openai.com", prompt_cache=True)

    asked = provider._body(
        Request(TALK, "m-1", params={"max_output_tokens": 50}, tools=[TOOL], tool_choice="none")
    )

    assert asked["max_completion_tokens"] == 50
    assert asked["store"] is False
    assert "max_tokens" not in asked
    assert asked["prompt_cache_key"]
    assert asked["tools"][0]["function"]["strict"] is True


def test_gemini_is_never_told_less_than_the_ten_seconds_it_accepts(
    server: Loopback, build: Build
) -> None:
    """Our own deadline holds all the same."""
    server.answer(answer_of("google"))
    provider = build("google", server.url)

    provider.complete(Request(TALK, "m-1", timeout_s=3))
    provider.complete(Request(TALK, "m-1", timeout_s=30))

    told = [asked["headers"]["x-server-timeout"] for asked in server.asked]
    assert told == ["10", "30"]


def test_the_environment_of_the_sdks_changes_nothing(
    adapter: str, server: Loopback, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roles file says where a prompt goes, and with which key; not a variable left behind."""
    for name in ("ANTHROPIC", "OPENAI", "GEMINI", "GOOGLE"):
        monkeypatch.setenv(f"{name}_API_KEY", "another-key")
        monkeypatch.setenv(f"{name}_BASE_URL", "http://127.0.0.1:9/elsewhere")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another-key")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9/elsewhere")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_USE_ENTERPRISE", "true")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v0")
    server.answer(answer_of(adapter))

    build(adapter, server.url).complete(Request(TALK, "m-1"))

    headers = server.asked[0]["headers"]
    assert KEY in (headers.get("authorization", "") + headers.get("x-goog-api-key", ""))
    assert "another-key" not in str(headers)


def test_a_keyless_provider_never_borrows_a_key_from_the_environment(
    server: Loopback, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of one's own must not get to see OpenAI's key."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    server.answer(answer_of("openai-chat"))

    build("openai-chat", server.url, api_key=None).complete(Request(TALK, "m-1"))

    assert server.asked[0]["headers"]["authorization"] == "Bearer none"


@pytest.mark.parametrize(
    "model", [types.GenerateContentConfig(temperature=1), types.Part(text="x")]
)
def test_googles_models_never_hold_a_name(model: Any) -> None:
    """What the adapter's own answer at once is what the SDK's would find out."""
    assert not [name for name in type(model).model_fields if name in model]


AGENTS = {
    "anthropic": f"Anthropic/Python {metadata.version('anthropic')}",
    "openai": f"OpenAI/Python {metadata.version('openai')}",
    "openai-chat": f"OpenAI/Python {metadata.version('openai')}",
    "google": f"google-genai-sdk/{metadata.version('google-genai')}",
}


def test_the_sdk_names_itself_to_its_vendor(adapter: str, server: Loopback, build: Build) -> None:
    """Also where a client of ours stands between the SDK and the adapter."""
    server.answer(answer_of(adapter))

    build(adapter, server.url).complete(request())

    headers = server.asked[0]["headers"]
    assert headers["user-agent"].startswith(AGENTS[adapter])
    assert headers["accept"] in {"application/json", "*/*"}
    assert headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("sdk", [anthropic.Anthropic, openai.OpenAI])
def test_the_address_of_a_path_is_built_once(
    sdk: type, server: Loopback, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To build it costs a call 80 us."""
    adapter = sdk.__name__.lower()
    prepare, paths = sdk._prepare_url, []  # type: ignore[attr-defined]
    monkeypatch.setattr(
        sdk, "_prepare_url", lambda self, url: (paths.append(url), prepare(self, url))[1]
    )
    server.answer(answer_of(adapter))
    provider = build(adapter, server.url)

    for _ in range(2):
        provider.complete(request())

    assert len(paths) == 1
    assert server.asked[0]["path"] == server.asked[1]["path"]

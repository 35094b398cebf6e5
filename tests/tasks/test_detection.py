"""Without a roles file: which providers the environment yields, and in which order."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from breakwater.errors import ConfigError
from tasks.answering.settings_loader import load_settings

A = {"ANTHROPIC_API_KEY": "a"}
O = {"OPENAI_API_KEY": "o"}  # noqa: E741 - one letter a vendor keeps the table readable
G = {"GEMINI_API_KEY": "g"}


@pytest.fixture(autouse=True)
def _no_roles_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("environ", "chain"),
    [
        (A, ["anthropic"]),
        ({**G, **O, **A}, ["anthropic", "openai", "google"]),
        ({**G, **A, "OPENAI_API_KEY": ""}, ["anthropic", "google"]),
        ({"GOOGLE_API_KEY": "g"}, ["google"]),
        ({**A, **O, **G, "PRIMARY_PROVIDER": "google"}, ["google", "anthropic", "openai"]),
        ({**A, **O, **G, "PRIMARY_PROVIDER": ""}, ["anthropic", "openai", "google"]),
    ],
)
def test_the_keys_make_one_chain_for_every_role(environ: Mapping[str, str], chain: list[str]):
    """In the order anthropic, openai, google; PRIMARY_PROVIDER goes first; empty is not set."""
    got = load_settings(environ)

    assert [target.provider for target in got.role("any").chain] == chain
    assert got.serves_any_role
    assert (got.source, got.version) == ("environment", "environment")


def test_the_vendors_own_variables_are_heard():
    """URL, model and key of each; Gemini's own key goes before Google's."""
    got = load_settings({
        **A, "ANTHROPIC_BASE_URL": "http://a", "ANTHROPIC_MODEL": "ma",
        **G, "GOOGLE_API_KEY": "other", "GOOGLE_GEMINI_BASE_URL": "http://g", "GEMINI_MODEL": "mg",
        **O, "OPENAI_MODEL": "mo",
    })  # fmt: skip

    providers = got.providers.values()
    assert [p.model for p in providers] == ["ma", "mo", "mg"]
    assert [p.base_url for p in providers] == ["http://a", None, "http://g"]
    assert [p.api_key.get_secret_value() for p in providers if p.api_key] == ["a", "o", "g"]


@pytest.mark.parametrize(
    ("url", "adapter"),
    [
        ("", "openai"),
        ("https://api.openai.com/v1", "openai"),
        ("http://127.0.0.1:8000/v1", "openai-chat"),
    ],
)
def test_a_server_of_ones_own_is_asked_by_chat_completions(url: str, adapter: str):
    """Only OpenAI itself is sure to speak Responses; the provider is `openai` either way."""
    got = load_settings({**O, "OPENAI_BASE_URL": url, "PRIMARY_PROVIDER": adapter})

    assert got.providers["openai"].adapter == adapter


def test_no_key_is_told_with_the_variables_and_the_file():
    """The message says everything that would help."""
    with pytest.raises(ConfigError) as refused:
        load_settings({})

    for words in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY",
                  "roles.yaml", "ROLES_FILE"):  # fmt: skip
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {**A, **O, "PRIMARY_PROVIDER": "opena"},
            "PRIMARY_PROVIDER: 'opena' has no key set; found are anthropic, openai "
            "(did you mean 'openai'?)",
        ),
        ({**A, "PRIMARY_PROVIDER": "google"}, "'google' has no key set; found are anthropic"),
        ({**A, "ANTHROPIC_BASE_URL": "CANARY"}, "ANTHROPIC_BASE_URL is not a URL like"),
        ({"GEMINI_API_KEY": "CANARY\n"}, "GEMINI_API_KEY is not visible ASCII characters alone"),
    ],
)
def test_a_variable_that_cannot_be_used_is_told(environ: Mapping[str, str], words: str):
    """By its name; what it held is shown for PRIMARY_PROVIDER alone."""
    with pytest.raises(ConfigError) as refused:
        load_settings(environ)

    assert words in str(refused.value)
    assert "CANARY" not in str(refused.value.args)


def test_roles_yaml_in_the_working_directory_goes_before_the_environment(tmp_path: Path):
    """ROLES_FILE, else ./roles.yaml, else detection."""
    content = "{provider: google, model: m, api_key: k}"
    (tmp_path / "roles.yaml").write_text(content)

    got = load_settings(A)

    assert (list(got.providers), got.source) == (["google"], "roles.yaml")

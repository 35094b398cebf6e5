"""`optional: true`: a provider whose variable is not set is left out of every chain."""

from pathlib import Path

import pytest

from breakwater.errors import ConfigError
from tasks.answering.settings_loader import load_settings
from tasks.config import Settings

ROOT = Path(__file__).parents[2]
FILE = """\
providers:
  a: {adapter: anthropic, model: m, api_key: "${A}", optional: true}
  b: {adapter: openai, model: m, api_key: "${B}", optional: true}
  c: {adapter: openai-chat, model: m, base_url: "http://127.0.0.1:1/v1"}
roles:
  first: {chain: [a, b, c]}
  second: {chain: [{provider: a, model: other}, {role: first}]}
"""


def load(tmp_path: Path, content: str, environ: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "roles.yaml"
    path.write_text(content)
    return load_settings({**(environ or {}), "ROLES_FILE": str(path)})


def faults(tmp_path: Path, content: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, content, environ)
    told: list[str] = refused.value.details["faults"]
    return [each.removeprefix(f"{tmp_path}/roles.yaml:") for each in told]


def chain(settings: Settings, role: str) -> list[str]:
    return [target.provider for target in settings.role(role).chain]


@pytest.mark.parametrize(
    ("environ", "first", "second", "left_out"),
    [
        ({"A": "k", "B": "k"}, ["a", "b", "c"], ["a", "a", "b", "c"], {}),
        ({"A": "k"}, ["a", "c"], ["a", "a", "c"], {"b": ("B",)}),
        ({"B": "k", "A": ""}, ["b", "c"], ["b", "c"], {"a": ("A",)}),
        ({}, ["c"], ["c"], {"a": ("A",), "b": ("B",)}),
    ],
)
def test_it_is_in_no_chain(
    tmp_path: Path, environ: dict[str, str], first: list[str], second: list[str], left_out: object
) -> None:
    """Neither by its name, nor with another model, nor by another role's chain."""
    settings = load(tmp_path, FILE, environ)

    assert (chain(settings, "first"), chain(settings, "second")) == (first, second)
    assert settings.left_out == left_out
    assert not settings.left_out.keys() & settings.providers.keys()


@pytest.mark.parametrize("key", ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"])
def test_any_one_key_will_do_for_the_shipped_file(key: str) -> None:
    """Compose passes the others on as empty variables."""
    keys = dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"), "")

    settings = load_settings({**keys, key: "k", "ROLES_FILE": str(ROOT / "roles.yaml")})

    assert all(role.chain for role in settings.roles.values())
    assert len(settings.providers) == 1


def test_the_shipped_file_without_any_key_is_one_fault() -> None:
    """It names every variable, and what to do."""
    with pytest.raises(ConfigError) as refused:
        load_settings({"ROLES_FILE": str(ROOT / "roles.yaml")})

    (fault,) = refused.value.details["faults"]
    assert "providers: no provider is left" in fault
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"):
        assert variable in fault
    assert "set one of these" in fault


def test_a_role_that_has_nobody_left_is_a_fault_by_its_line(tmp_path: Path) -> None:
    """The others are served; but a worker starts with all of its roles or not at all."""
    told = faults(tmp_path, FILE + "  alone: {chain: [b, a]}\n")

    assert told == [
        "8: roles.alone.chain: no provider is left; optional, and left out while a variable is "
        "not set: b (B), a (A); set one of these, or add a provider"
    ]


def test_the_last_resort_serves_a_role_whose_chain_is_left_out(tmp_path: Path) -> None:
    """Unless it is left out itself."""
    alone = FILE + "  alone: {chain: [a]}\n"

    assert chain(load(tmp_path, alone + "default_provider: c\n"), "alone") == ["c"]
    assert load(tmp_path, FILE + "default_provider: a\n").default_provider is None
    assert "roles.alone.chain" in faults(tmp_path, alone + "default_provider: b\n")[0]


def test_what_is_wrong_with_it_otherwise_is_a_fault_all_the_same(tmp_path: Path) -> None:
    """A file is not right on one host and wrong on another."""
    told = faults(tmp_path, FILE.replace('"${A}",', '"${A}", modle: x, timeout: {total_s: -1},'))

    assert {each.split(": ")[1] for each in told} == {"providers.a", "providers.a.timeout.total_s"}


@pytest.mark.parametrize("optional", ["false", "maybe", "1"])
def test_only_true_excuses(tmp_path: Path, optional: str) -> None:
    """The variable's fault stays, whatever else is there."""
    told = faults(tmp_path, FILE.replace("optional: true", f"optional: {optional}", 1))

    assert any("${A} is not set" in each for each in told)


def test_a_variable_that_another_provider_needs_is_a_fault(tmp_path: Path) -> None:
    """Also where both have it from one anchor."""
    told = faults(
        tmp_path,
        """\
x-key: &key ${A}
providers:
  a: {adapter: anthropic, model: m, api_key: *key, optional: true}
  b: {adapter: openai, model: m, api_key: *key}
roles:
  first: {chain: [a, b]}
""",
    )

    assert [each.partition(":")[0] for each in told] == ["1"]


def test_an_anchor_may_hold_what_optional_providers_share(tmp_path: Path) -> None:
    """By merge keys, which bring the variable and the flag along."""
    settings = load(
        tmp_path,
        """\
providers:
  a: &base {adapter: anthropic, model: m, api_key: "${A}", optional: true}
  b: {<<: *base, model: n}
  c: {adapter: openai-chat, model: m, base_url: "http://127.0.0.1:1/v1"}
roles:
  first: {chain: [a, b, c]}
""",
    )

    assert chain(settings, "first") == ["c"]
    assert settings.left_out == {"a": ("A",), "b": ("A",)}


def test_any_variable_of_its_own_counts(tmp_path: Path) -> None:
    """Such as that of its address."""
    file = FILE.replace('api_key: "${A}"', 'api_key: "${A}", base_url: "${A_URL}"')

    assert load(tmp_path, file, {"A": "k"}).left_out["a"] == ("A_URL",)

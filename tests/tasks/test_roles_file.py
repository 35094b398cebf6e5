"""The roles file: what it yields, and every fault by its line and its words."""

import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from breakwater.config import role_names
from breakwater.config.document import Faults, Node
from breakwater.errors import ConfigError, InvalidOption, UnknownRole
from tasks.answering.settings_loader import load_settings
from tasks.config import (
    BreakerSettings,
    CacheSettings,
    Settings,
    Target,
    Timeout,
    roles_file,
)

ROOT = Path(__file__).parents[2]
KEYS = {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "b", "GEMINI_API_KEY": "c"}

CLAUDE = "providers: {claude: {adapter: anthropic, model: m, api_key: k}}"
CODER = "roles: {coder: {chain: [claude]}}"


def provider(more: str) -> str:
    return f"providers: {{claude: {{adapter: anthropic, model: m, api_key: k, {more}}}}}\n{CODER}"


def roles(text: str) -> str:
    return f"{CLAUDE}\nroles: {text}"


@pytest.fixture
def load(tmp_path: Path):
    """Load a roles file with this content, in this environment."""

    def load(content: str | bytes, environ: Mapping[str, str] | None = None) -> Settings:
        path = tmp_path / "roles.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_settings({**(environ or {}), "ROLES_FILE": str(path)})

    return load


@pytest.fixture
def faults(load, tmp_path: Path):
    """Load a roles file that must be refused; yields its faults as `LINE: …`."""

    def faults(content: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            load(content, environ)
        told = refused.value.details["faults"]
        assert all(line in str(refused.value) for line in told)
        return [line.removeprefix(f"{tmp_path / 'roles.yaml'}:") for line in told]

    return faults


def test_a_file_becomes_settings(load):
    """Every key arrives, converted and with its default."""
    content = """
providers:
  claude:
    adapter: anthropic
    model: haiku
    api_key: ${KEY}
    base_url: ${URL:-}
    timeout: {connect_s: 1, total_s: "${TOTAL:-9}"}
    params: {max_output_tokens: 10}
    prompt_cache: true
    breaker: {fail_max: 2, reset_timeout_s: 3, success_threshold: 1, max_probes: 4,
              retry_after_max_s: 0}
    prices: {haiku: {input_tokens: 0.1, output_tokens: 1}, "*": {input_tokens: 2, output_tokens: "${TOTAL:-9}"}}
  local: {adapter: openai-chat, model: qwen, base_url: "http://127.0.0.1:8000/v1", api_key: none}
default_provider: local
params: {temperature: 0.5}
roles:
  coder: {chain: [{provider: claude, model: opus}], system: Code., deadline_s: 60}
  reviewer: {chain: [claude, {role: coder}], cache: {ttl_s: "${TTL:-3600}"}}
"""

    got = load(content, {"KEY": "12345"})

    claude, local = got.providers["claude"], got.providers["local"]
    assert claude.api_key is not None
    assert claude.api_key.get_secret_value() == "12345"
    assert (claude.model, claude.base_url, claude.prompt_cache) == ("haiku", None, True)
    assert claude.timeout == Timeout(connect_s=1.0, total_s=9.0)
    assert claude.breaker == BreakerSettings(2, 3.0, 1, 4, 0.0)
    assert claude.prices == {
        "haiku": {"input_tokens": Decimal("0.1"), "output_tokens": 1},
        "*": {"input_tokens": 2, "output_tokens": 9},
    }
    assert (local.api_key, local.timeout, local.breaker) == (None, Timeout(), BreakerSettings())
    last = Target("local", "qwen")
    assert got.role("coder").chain == (Target("claude", "opus"), last)
    assert got.role("coder").system == "Code."
    assert got.role("coder").deadline_s == 60.0
    assert got.role("reviewer").chain == (
        Target("claude", "haiku"), Target("claude", "opus"), last,
    )  # fmt: skip
    assert got.role("reviewer").deadline_s == 86400.0
    assert got.role("coder").cache is None
    assert got.role("reviewer").cache == CacheSettings(3600)
    assert got.source.endswith("roles.yaml")
    assert len(got.version) == 12
    assert not got.serves_any_role


def test_the_nearest_parameters_win_key_by_key(load):
    """Global < provider < role < call."""
    content = """
providers: {gpt: {adapter: openai, model: m, api_key: k, params: {temperature: 0.2, top_p: 0.2}}}
params: {temperature: 0.1, top_p: 0.1, seed: 1, max_output_tokens: 1}
roles: {coder: {chain: [gpt], params: {top_p: 0.3, max_output_tokens: 3}}}
"""
    got = load(content)

    merged = got.params_for(Target("gpt", "m"), got.role("coder"), {"max_output_tokens": 4})

    assert merged == {"seed": 1, "temperature": 0.2, "top_p": 0.3, "max_output_tokens": 4}


def test_an_unknown_role_names_the_nearest(load):
    """The error lists the roles there are."""
    got = load(f"{CLAUDE}\n{CODER}")

    with pytest.raises(UnknownRole, match=r"unknown role 'codr'.*has coder \(did you mean 'coder'"):
        got.role("codr")


def test_a_single_provider_serves_every_role(load):
    """The form with `provider` at the top has no roles of its own."""
    got = load("{provider: anthropic, model: m, api_key: k, timeout: {total_s: 5}}")

    assert got.serves_any_role
    assert got.role("whatever").chain == (Target("anthropic", "m"),)
    assert got.providers["anthropic"].timeout.total_s == 5.0
    with pytest.raises(UnknownRole, match="cannot name a role"):
        got.role("no spaces")


def test_anchors_and_merge_keys_work_and_own_keys_win(load):
    """`x-` keys at the top are a place for anchors; lines are those of the anchor."""
    content = """
x-slow: &slow {timeout: {total_s: 600}, adapter: openai, prompt_cache: true}
providers: {claude: {<<: *slow, adapter: anthropic, model: m, api_key: k}}
roles: {coder: {chain: [claude]}}
"""

    got = load(content).providers["claude"]

    assert (got.adapter, got.timeout.total_s, got.prompt_cache) == ("anthropic", 600.0, True)


def test_variables_are_expanded_and_empty_ones_count_as_not_set(load):
    """`$${` is a plain `${`; what comes out empty counts as not written."""
    content = """
providers: {claude: {adapter: anthropic, model: "${A}-${B:-b}-${C:-c}", api_key: k}}
roles: {coder: {chain: [claude, "${D:-}"], system: "say $${A} and $5", params: {stop: ["${N:-7}"]}}}
"""

    got = load(content, {"A": "a", "C": ""})

    assert got.providers["claude"].model == "a-b-c"
    assert got.role("coder").chain == (Target("claude", "a-b-c"),)
    assert got.role("coder").system == "say ${A} and $5"
    assert got.role("coder").params == {"stop": ["7"]}


def test_an_adapter_of_ones_own_is_imported(load):
    """`package.module:Class` needs no api_key."""
    content = "{provider: 'collections:OrderedDict', model: m}"

    got = load(content)

    assert got.providers["OrderedDict"].adapter == "collections:OrderedDict"
    assert got.providers["OrderedDict"].api_key is None


ADAPTERS = "anthropic, openai, openai-chat, google, or package.module:Class"
PROVIDER_KEYS = "adapter, model, api_key, base_url, prompt_cache, optional, inputs, timeout, params, breaker, prices"
PARAMS = "max_output_tokens, temperature, top_p, stop, seed, reasoning_effort"
URL = "a URL like https://host/path (no user or password in it)"
PACING = "is kept for pacing, which does not work yet; remove it until it does"
CHAIN = "a list of providers, such as [claude, {provider: gpt, model: …}, {role: …}]"
NAMES = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"

FAULTS = {
    # YAML
    "": "1: empty; it needs providers and roles",
    "# nothing\n": "1: empty; it needs providers and roles",
    "a: 1\nb: [": "2: expected the node content, but found '<stream end>'",
    "a: 1\n---\nb: 1": "2: but found another document",
    "a: *b": "1: found undefined alias 'b'",
    "a: 1\nb: \x07": "2: a character that YAML does not allow",
    "[" * 5000: "1: nested too deeply",
    "- a": "1: a list is not a mapping with the keys providers, params, default_provider, roles, workflows",
    f"{CLAUDE}\n{CODER}\nroles: {{}}": "3: roles: given twice, first in line 2",
    f"{CLAUDE}\n{CODER}\n[a]: 1": "3: a key must be a word, not a list or a mapping",
    f"{CLAUDE}\n{CODER}\n<<: 3": "3: '<<' needs a mapping, or a list of mappings",
    f"{CLAUDE}\n{CODER}\nparams: &a {{stop: *a}}": (
        "3: params.stop: an alias stands inside its own anchor"
    ),
    f"{CLAUDE}\n{CODER}\nparams: !!set {{seed}}": (
        "3: params: the tag 'tag:yaml.org,2002:set' is not allowed here"
    ),
    f"{CLAUDE}\n{CODER}\nparams: {{seed: !!python/name:os.system ''}}": (
        "3: params.seed: the tag 'tag:yaml.org,2002:python/name:os.system' is not allowed here"
    ),
    f"{CLAUDE}\n{CODER}\nparams: {{seed: {'9' * 5000}}}": (
        f"3: params.seed: '{'9' * 57}...' cannot be read as int"
    ),
    # variables
    provider("base_url: '${NO}'"): (
        "1: providers.claude.base_url: ${NO} is not set; set it, or write ${NO:-default}"
    ),
    provider("base_url: '${NO-x}'"): (
        "1: providers.claude.base_url: cannot read '${NO-x}'; "
        "write ${VAR}, ${VAR:-default}, or $${"
    ),
    # the top
    CODER: "1: providers: missing; there must be at least one",
    CLAUDE: "1: roles: missing; there must be at least one",
    f"{CLAUDE}\nroles: {{}}": "2: roles: an empty mapping is not a mapping of names to roles",
    f"{CODER}\nproviders: 3": "2: providers: 3 is not a mapping of names to providers",
    f"{CLAUDE}\n{CODER}\nrole: 3": (
        "3: unknown key 'role'; allowed are providers, params, default_provider, roles, workflows "
        "(did you mean 'roles'?)"
    ),
    f"{CLAUDE}\n{CODER}\nbudget: 3": f"3: 'budget' {PACING}",
    f"{CLAUDE}\n{CODER}\ndefault_provider: claud": (
        "3: default_provider: unknown provider 'claud'; there are claude (did you mean 'claude'?)"
    ),
    f"{CLAUDE}\n{CODER}\ndefault_provider: [claude]": "3: default_provider: a list is not a text",
    # a provider
    f"providers: {{a/b: {{adapter: anthropic, model: m, api_key: k}}}}\n{CODER}": (
        f"1: providers: 'a/b' cannot be a name; allowed is {NAMES}"
    ),
    f"providers: {{claude: anthropic}}\n{CODER}": (
        f"1: providers.claude: 'anthropic' is not a mapping with the keys {PROVIDER_KEYS}"
    ),
    f"providers: {{claude: {{adapter: anthropic, api_key: k}}}}\n{CODER}": (
        "1: providers.claude: model is missing"
    ),
    f"providers: {{claude: {{model: m, api_key: k}}}}\n{CODER}": (
        "1: providers.claude: adapter is missing"
    ),
    f"providers: {{claude: {{adapter: antropic, model: m}}}}\n{CODER}": (
        f"1: providers.claude.adapter: 'antropic' is not a valid adapter; there are {ADAPTERS} "
        "(did you mean 'anthropic'?)"
    ),
    f"providers: {{claude: {{adapter: 'no.such:Thing', model: m}}}}\n{CODER}": (
        "1: providers.claude.adapter: 'no.such:Thing' cannot be imported (ModuleNotFoundError)"
    ),
    f"providers: {{claude: {{adapter: 'os:Thing', model: m}}}}\n{CODER}": (
        "1: providers.claude.adapter: 'os:Thing' cannot be imported (AttributeError)"
    ),
    f"providers: {{claude: {{adapter: 'os:sep', model: m}}}}\n{CODER}": (
        "1: providers.claude.adapter: 'os:sep' is not a class"
    ),
    f"providers: {{claude: {{adapter: google, model: m}}}}\n{CODER}": (
        "1: providers.claude: api_key is missing; only openai-chat with a base_url can do without"
    ),
    f"providers: {{claude: {{adapter: google, model: m, api_key: none}}}}\n{CODER}": (
        "1: providers.claude.api_key: only openai-chat with a base_url may have none"
    ),
    f"providers: {{claude: {{adapter: openai-chat, model: m}}}}\n{CODER}": (
        "1: providers.claude: api_key is missing; only openai-chat with a base_url can do without"
    ),
    f'providers: {{claude: {{adapter: google, model: m, api_key: "k\\n"}}}}\n{CODER}': (
        "1: providers.claude.api_key: the value is not visible ASCII characters alone "
        "(does a space or a line break hang on the key?)"
    ),
    f"providers: {{claude: {{adapter: google, model: 4.1, api_key: k}}}}\n{CODER}": (
        "1: providers.claude.model: 4.1 is not a text"
    ),
    provider("base_url: api.example.com"): (
        f"1: providers.claude.base_url: 'api.example.com' is not {URL}"
    ),
    provider("base_url: 'http://u:p@host'"): (
        f"1: providers.claude.base_url: 'http://u:p@host' is not {URL}"
    ),
    provider("base_url: 'http://host:port'"): (
        f"1: providers.claude.base_url: 'http://host:port' is not {URL}"
    ),
    provider("inputs: image"): (
        "1: providers.claude.inputs: 'image' is not a list of image and document, perhaps empty"
    ),
    provider("inputs: [image, sound]"): (
        "1: providers.claude.inputs: a list is not a list of image and document, perhaps empty"
    ),
    provider("inputs: [image, image]"): (
        "1: providers.claude.inputs: a list is not a list of image and document, perhaps empty"
    ),
    roles("{coder: {chain: [claude], drop_params: 1}}"): (
        "2: roles.coder.drop_params: 1 is not true or false"
    ),
    roles("{coder: {chain: [claude], drop_params: false, params: {temperature: 0}}}"): (
        "2: roles.coder.params.temperature: provider 'claude': Anthropic's API of 2026-10-21 does "
        "not take it; remove it here, or let role 'coder' drop it (drop_params)"
    ),
    f"{CLAUDE}\nroles: {{coder: {{chain: [claude], drop_params: false}}}}\nparams: {{seed: 1}}": (
        "3: params.seed: provider 'claude': Anthropic's API of 2026-10-21 does not take it; remove "
        "it here, or let role 'coder' drop it (drop_params)"
    ),
    provider("prompt_cache: 1"): "1: providers.claude.prompt_cache: 1 is not true or false",
    provider("prices: 3"): (
        "1: providers.claude.prices: 3 is not a mapping of models, or '*' for any, to their prices"
    ),
    provider("prices: {m: {input_tokens: -1, output_tokens: 2}}"): (
        "1: providers.claude.prices.m.input_tokens: -1 is not a number of US dollars per million "
        "tokens from 0 to 100000"
    ),
    provider("prices: {m: {input_tokens: 1}}"): (
        "1: providers.claude.prices.m: output_tokens is missing"
    ),
    provider("prices: {m: {input: 1}}"): (
        "1: providers.claude.prices.m: unknown key 'input'; allowed are input_tokens, "
        "output_tokens, cached_input_tokens, cache_write_tokens"
    ),
    provider("timeout: 30"): (
        "1: providers.claude.timeout: 30 is not a mapping with the keys connect_s, total_s, first_token_s, between_tokens_s"
    ),
    provider("timeout: {total_s: 0}"): (
        "1: providers.claude.timeout.total_s: 0 is not a number of seconds from 0.001 to 86400"
    ),
    provider("timeout: {connect_s: .nan}"): (
        "1: providers.claude.timeout.connect_s: .nan is not a number of seconds from 0.001 to 600"
    ),
    provider("timeout: {total: 3}"): (
        "1: providers.claude.timeout: unknown key 'total'; allowed are connect_s, total_s, "
        "first_token_s, between_tokens_s (did you mean 'total_s'?)"
    ),
    provider("breaker: {fail_max: 0}"): (
        "1: providers.claude.breaker.fail_max: 0 is not a whole number from 1 to 10000"
    ),
    provider("breaker: {success_threshold: 1.5}"): (
        "1: providers.claude.breaker.success_threshold: 1.5 is not a whole number from 1 to 1000"
    ),
    provider("breaker: {max_probes: true}"): (
        "1: providers.claude.breaker.max_probes: true is not a whole number from 1 to 1000"
    ),
    provider("limits: {concurrency: 3}"): f"1: providers.claude: 'limits' {PACING}",
    provider("params: {strategy: 3}"): f"1: providers.claude.params: 'strategy' {PACING}",
    provider("api_keys: [a]"): (
        f"1: providers.claude: unknown key 'api_keys'; allowed are {PROVIDER_KEYS} "
        "(did you mean 'api_key'?)"
    ),
    # the cache
    roles("{coder: {chain: [claude], cache: {ttl_s: 0}}}"): (
        "2: roles.coder.cache.ttl_s: 0 is not a whole number from 1 to 2592000"
    ),
    roles("{coder: {chain: [claude], cache: {ttl: 60}}}"): (
        "2: roles.coder.cache: unknown key 'ttl'; allowed are ttl_s (did you mean 'ttl_s'?)"
    ),
    roles("{coder: {chain: [claude], cache: {}}}"): "2: roles.coder.cache: ttl_s is missing",
    roles("{coder: {chain: [claude], cache: 60}}"): (
        "2: roles.coder.cache: 60 is not a mapping with the keys ttl_s"
    ),
    # parameters
    f"{CLAUDE}\n{CODER}\nparams: {{temprature: 1}}": (
        f"3: params: unknown key 'temprature'; allowed are {PARAMS} (did you mean 'temperature'?)"
    ),
    f"{CLAUDE}\n{CODER}\nparams: {{temperature: 3}}": (
        "3: params.temperature: 3 is not a number from 0 to 2"
    ),
    f"{CLAUDE}\n{CODER}\nparams: {{reasoning_effort: hihg}}": (
        "3: params.reasoning_effort: 'hihg' is not one of none, minimal, low, medium, high, "
        "xhigh, max (did you mean 'high'?)"
    ),
    f"{CLAUDE}\n{CODER}\nparams: {{stop: END}}": (
        "3: params.stop: 'END' is not a list of 1 to 4 non-empty strings"
    ),
    f"{CLAUDE}\n{CODER}\nparams: [temperature]": (
        f"3: params: a list is not a mapping with the keys {PARAMS}"
    ),
    provider("params: {temperature: 0}"): (
        "1: providers.claude.params.temperature: "
        "Anthropic's API of 2026-10-21 does not take it; remove it here"
    ),
    "providers: {gpt: {adapter: openai, model: m, api_key: k, params: {stop: [a]}}}\n"
    "roles: {coder: {chain: [gpt]}}": (
        "1: providers.gpt.params.stop: OpenAI's Responses API does not take it "
        "(adapter openai-chat does); remove it here"
    ),
    # roles and chains
    roles("{a b: {chain: [claude]}}"): f"2: roles: 'a b' cannot be a name; allowed is {NAMES}",
    roles("{coder: {system: Code.}}"): "2: roles.coder: chain is missing",
    roles("{coder: [claude]}"): (
        "2: roles.coder: a list is not a mapping with the keys chain, system, deadline_s, stream_restart, drop_params, params, cache"
    ),
    roles("{coder: {chain: []}}"): f"2: roles.coder.chain: an empty list is not {CHAIN}",
    roles("{coder: {chain: claude}}"): f"2: roles.coder.chain: 'claude' is not {CHAIN}",
    roles("{coder: {chain: [claud]}}"): (
        "2: roles.coder.chain[1]: unknown provider 'claud'; there are claude "
        "(did you mean 'claude'?)"
    ),
    roles("{coder: {chain: [claude, {model: m}]}}"): (
        "2: roles.coder.chain[2]: needs provider (and model), or role alone"
    ),
    roles("{coder: {chain: [claude, {role: coder, model: m}]}}"): (
        "2: roles.coder.chain[2]: needs provider (and model), or role alone"
    ),
    roles("{coder: {chain: [claude, {provider: gpt}]}}"): (
        "2: roles.coder.chain[2].provider: unknown provider 'gpt'; there are claude"
    ),
    roles("{coder: {chain: [claude, {provider: claude, model: 4}]}}"): (
        "2: roles.coder.chain[2].model: 4 is not a text"
    ),
    roles("{coder: {chain: [claude]}, a: {chain: [{role: codr}]}}"): (
        "2: roles.a.chain[1].role: unknown role 'codr'; there are coder, a (did you mean 'coder'?)"
    ),
    roles("{coder: {chain: [claude, claude]}}"): (
        "2: roles.coder.chain[2]: provider 'claude' with the same model is in the chain twice"
    ),
    roles("{coder: {chain: [claude]}, a: {chain: [claude, {role: coder}]}}"): (
        "2: roles.a.chain[2]: provider 'claude' with the same model is in the chain twice"
    ),
    roles("\n  a: {chain: [{role: b}]}\n  b: {chain: [claude, {role: a}]}"): (
        "4: roles.b.chain[2]: a circle of roles: a -> b -> a"
    ),
    roles("{a: {chain: [{role: a}]}}"): "2: roles.a.chain[1]: a circle of roles: a -> a",
    roles("{coder: {chain: [claude], deadline_s: soon}}"): (
        "2: roles.coder.deadline_s: 'soon' is not a number of seconds from 0.001 to 2592000"
    ),
    roles("{coder: {chain: [claude], system: ''}}"): "2: roles.coder.system: '' is not a text",
    # the single-provider form
    "{provider: anthropic, model: m, api_key: k, roles: {}}": (
        "1: unknown key 'roles'; allowed are provider, model, api_key, base_url, prompt_cache, optional, "
        "inputs, timeout, params, breaker, prices"
    ),
    "{provider: openai}": "1: model is missing",
}  # fmt: skip


@pytest.mark.parametrize(("content", "fault"), FAULTS.items(), ids=range(len(FAULTS)))
def test_a_fault_is_told_by_line_with_what_is_allowed(faults, content: str, fault: str):
    """Each fault names its line, key, value, what is allowed, and the nearest known name."""
    told = faults(content)

    assert fault in told


def test_all_faults_are_told_at_once(faults):
    """Ten different faults in one file: ten lines, each at its place, and no others."""
    content = """\
providers:
  claude: {adapter: antropic, model: m, api_key: k}
  gpt: {adapter: openai, api_key: k}
  local: {adapter: openai-chat, model: m, base_url: ftp://x, timeout: {total_s: -1}}
  gemini: {adapter: google, model: m, api_key: "${GEMINI_KEY}"}
params: {temperature: hot}
default_provider: nobody
roles:
  coder: {chain: [claude, claude]}
  planner: {chain: [{role: reviewer}], dead_line: 3}
  reviewer: {chain: [{role: planner}]}
"""

    told = faults(content)

    assert [line.partition(":")[0] for line in told] == [
        "2", "3", "4", "4", "5", "6", "7", "9", "10", "11",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file or directory"), (b"a" * 300_000, "larger than 256 KiB")],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, words: str):
    """A ROLES_FILE that is set must be there: there is no falling back to detection."""
    path = tmp_path / "roles.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=words):
        load_settings({"ROLES_FILE": str(path), "ANTHROPIC_API_KEY": "k"})


def test_a_file_that_is_not_utf8_is_told_by_line(faults):
    """The line of the first byte that is none."""
    assert faults(b"providers: {}\nroles: \xff") == ["2: not UTF-8"]


def test_aliases_cannot_multiply(faults):
    """A file of a few lines never takes more than a moment: aliased nodes are read once."""
    levels = [f"x-{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 40)]
    bomb = "\n".join(["x-0: &l0 [lol]", *levels, "params: {stop: *l39}", CLAUDE, CODER])

    assert faults(bomb) == ["41: params.stop: a list is not a list of 1 to 4 non-empty strings"]


def test_merge_keys_cannot_multiply(faults):
    """The keys brought in by `<<` are counted."""
    wide = ", ".join(f"k{i}: 1" for i in range(2_000))
    many = "\n".join(["x-a: &a {" + wide + "}", f"x-b: {{<<: [{', '.join(['*a'] * 6)}]}}"])

    assert "2: x-b: more than 10000 keys come in by '<<'" in faults(f"{many}\n{CLAUDE}\n{CODER}")


def test_roles_one_inside_the_other_are_bounded(faults):
    """Two hundred roles, each of which continues with the next, are a fault and no crash."""
    deep = ", ".join(f"r{i}: {{chain: [{{role: r{i + 1}}}]}}" for i in range(200))

    told = faults(roles(f"{{{deep}, r200: {{chain: [claude]}}}}"))

    assert "2: roles.r49.chain[1]: more than 50 roles, one inside the other" in told


CANARY = "CANARY-7f3a"


def test_what_a_variable_held_is_never_shown(load):
    """Not in a message, not in its traceback, wherever the variable stands."""
    content = """
providers:
  claude:
    adapter: ${CANARY}
    model: m
    api_key: "${CANARY}\\n"
    base_url: ${CANARY}
    prompt_cache: ${CANARY}
    timeout: {connect_s: "${CANARY}", total_s: "x${CANARY}"}
    params: {temperature: "${CANARY}", reasoning_effort: "${CANARY}", stop: "${CANARY}"}
    breaker: {fail_max: "${CANARY}"}
  gpt: {adapter: "${CANARY}:Class", model: m}
default_provider: ${CANARY}
roles:
  coder:
    chain: ["${CANARY}", {provider: "${CANARY}"}, {role: "${CANARY}"}]
    deadline_s: ${CANARY}
  planner: ${CANARY}
"""

    with pytest.raises(ConfigError) as refused:
        load(content, {"CANARY": CANARY})

    assert len(refused.value.details["faults"]) == 17
    assert "'${CANARY}'" in str(refused.value)
    assert CANARY not in str(refused.value.args)
    assert CANARY not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("broken", ["base_url: [", "api_key: {a: 1}", "api_key: '${NO}'"])
def test_a_key_written_in_the_file_is_never_shown(load, broken: str):
    """Not even where its own line is no YAML."""
    content = f"provider: anthropic\nmodel: m\napi_key: {CANARY}\n{broken} # {CANARY}\n"

    with pytest.raises(ConfigError) as refused:
        load(content)

    assert CANARY not in "".join(traceback.format_exception(refused.value))


def test_settings_do_not_print_keys_and_system_prompts(load):
    """`repr` is what ends up in logs."""
    claude = CLAUDE.replace("api_key: k", f"api_key: {CANARY}")
    content = f"{claude}\nroles: {{a: {{chain: [claude], system: {CANARY}}}}}"

    got = load(content)

    assert got.providers["claude"].api_key.get_secret_value() == CANARY
    assert got.role("a").system == CANARY
    assert CANARY not in repr(got)


def test_role_names_need_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A producer knows the names without the variables; None is: cannot be known."""
    monkeypatch.chdir(tmp_path)
    assert role_names({}) is None

    (tmp_path / "roles.yaml").write_text((ROOT / "roles.yaml").read_text())
    assert role_names({}) == {"clarifier", "planner", "coder", "reviewer"}

    (tmp_path / "single.yaml").write_text("{provider: anthropic}")
    assert role_names({"ROLES_FILE": "single.yaml"}) is None

    with pytest.raises(ConfigError, match="cannot be read"):
        role_names({"ROLES_FILE": "nowhere.yaml"})


def test_role_names_follow_the_file(tmp_path: Path):
    """The names are kept, but not beyond a change of the file."""
    path = tmp_path / "roles.yaml"
    path.write_text("roles: {a: {}}")
    assert role_names({"ROLES_FILE": str(path)}) == {"a"}

    path.write_text("roles: {a: {}, b: {}}")

    assert role_names({"ROLES_FILE": str(path)}) == {"a", "b"}


def test_the_example_is_valid_once_the_keys_are_set():
    """`roles.yaml` is the file to start from."""
    got = load_settings({**KEYS, "ROLES_FILE": str(ROOT / "roles.yaml")})

    assert {role: len(got.role(role).chain) for role in got.roles} == {
        "clarifier": 3, "planner": 3, "coder": 3, "reviewer": 4,
    }  # fmt: skip


def test_the_documented_example_and_messages_are_true(load, faults):
    """docs/roles-file.md shows what is said, word by word."""
    blocks = (ROOT / "docs" / "roles-file.md").read_text().split("```")
    example = blocks[1].removeprefix("yaml\n")
    shown = next(block for block in blocks if "faults:" in block)
    refused = """\
providers:
  claude: {adapter: antropic, model: m, api_key: "${ANTHROPIC_API_KEY}"}
  gpt: {adapter: openai, model: m, api_key: k}
roles:
  coder: {chain: [claude, gtp]}
  planner: {chain: [{role: reviewer}]}
  reviewer: {chain: [gpt, {role: planner}]}
"""

    assert load(example, KEYS).role("coder").deadline_s == 600
    told = faults(refused)

    assert [line.strip() for line in shown.strip().splitlines()[2:]] == [
        f"roles.yaml:{line}" for line in told
    ]


KNOWN = [
    "providers", "roles", "params", "default_provider", "provider", "adapter", "model", "api_key",
    "base_url", "timeout", "breaker", "chain", "role", "system", "claude", "coder", "temperature",
    "stop", "limits", "x-a", "<<", "total_s", "fail_max",
]  # fmt: skip
WORDS = ["anthropic", "openai-chat", "none", "${A}", "${A:-}", "${", "claude", "coder", "", "1e9"]
KEY = st.sampled_from(KNOWN) | st.text(max_size=5)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=6),
    max_leaves=25,
)


@pytest.fixture(scope="module")
def junk_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("junk") / "roles.yaml"


def load_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with suppress(ConfigError):
        assert isinstance(load_settings({"ROLES_FILE": str(path), "A": "x"}), Settings)


@given(
    st.fixed_dictionaries({}, optional={"providers": JUNK, "roles": JUNK, "params": JUNK}) | JUNK
)
@settings(max_examples=300, deadline=None)
def test_junk_never_raises_anything_but_config_error(junk_file: Path, junk: Any):
    """Any structure that YAML can write is either good or refused."""
    load_or_refuse(junk_file, yaml.safe_dump(junk).encode())


@given(
    st.binary(max_size=60) | st.text("{}[]:-&*!|>'\"%@`#,?<~ \nab${", max_size=60).map(str.encode)
)
@settings(max_examples=300, deadline=None)
def test_bytes_never_raise_anything_but_config_error(junk_file: Path, content: bytes):
    """Any bytes are either good or refused."""
    load_or_refuse(junk_file, content)


def test_what_media_a_provider_takes_is_its_vendors_unless_told(load):
    """Chat Completions is spoken by many, most of which take no documents; some take nothing."""
    content = """
providers:
  claude: {adapter: anthropic, model: m, api_key: k}
  gpt: {adapter: openai, model: m, api_key: k}
  gemini: {adapter: google, model: m, api_key: k}
  local: {adapter: openai-chat, model: m, api_key: k}
  blind: {adapter: openai-chat, model: m, api_key: k, inputs: []}
  reader: {adapter: openai-chat, model: m, api_key: k, inputs: [document, image]}
  own: {adapter: "tests.support.scripted:ScriptedProvider", model: m}
roles: {coder: {chain: [claude]}}
"""

    media = {name: set(own.media) for name, own in load(content).providers.items()}

    both = {"image", "document"}
    assert media == {
        "claude": both, "gpt": both, "gemini": both, "local": {"image"}, "blind": set(),
        "reader": both, "own": set(),
    }  # fmt: skip


def test_a_strict_role_may_set_what_all_its_targets_take(load):
    """And others in the same file go on dropping."""
    content = f"""
{CLAUDE}
params: {{max_output_tokens: 5}}
roles:
  strict: {{chain: [claude], drop_params: false, params: {{stop: [a]}}}}
  other: {{chain: [claude], params: {{temperature: 0}}}}
"""

    got = load(content)

    assert not got.role("strict").drop_params
    assert got.role("other").drop_params


def test_a_strict_role_refuses_a_calls_params_that_a_target_would_drop(load):
    """Naming param, provider and what to do; a role that drops says nothing."""
    got = load(roles("{strict: {chain: [claude], drop_params: false}, other: {chain: [claude]}}"))

    with pytest.raises(InvalidOption) as refused:
        got.check_params(got.role("strict"), {"temperature": 0, "seed": 1, "stop": ["a"]})
    got.check_params(got.role("other"), {"temperature": 0})
    got.check_params(got.role("strict"), {"stop": ["a"]})

    assert refused.value.details["faults"] == [
        f"params.{name}: provider 'claude': Anthropic's API of 2026-10-21 does not take it; "
        "leave it out, or set drop_params: true for role 'strict'"
        for name in ("seed", "temperature")
    ]


def test_a_section_of_another_package_is_checked_by_the_reader_passed_for_it():
    """The reader gets the section's node and the names of the roles, and adds its own faults."""

    def reader(node: Node, roles: Collection[str], faults: Faults) -> None:
        faults.add(node.line, "budgets", f"{node.shown} for {sorted(roles)}")

    content = f"{CLAUDE}\n{CODER}\nbudgets: {{team: 5}}".encode()

    with pytest.raises(ConfigError) as refused:
        roles_file.check(content, Path("roles.yaml"), {}, {"budgets": reader})

    assert refused.value.details["faults"] == ["roles.yaml:3: budgets: a mapping for ['coder']"]


def test_a_section_without_a_reader_is_an_unknown_key():
    """A file never passes with a section that nobody has checked."""
    content = f"{CLAUDE}\n{CODER}\nworkflows: {{}}".encode()

    with pytest.raises(ConfigError, match="unknown key 'workflows'"):
        roles_file.check(content, Path("roles.yaml"), {}, {})

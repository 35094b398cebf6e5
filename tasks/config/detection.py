"""
Settings without a roles file: one chain over every vendor whose key is in the environment.

The variables are those the vendors' SDKs read; an empty one counts as not set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from breakwater.errors import ConfigError, nearest
from tasks.config.endpoint import API_KEY, BASE_URL
from tasks.config.settings import ProviderSettings, Settings


@dataclass(frozen=True, slots=True)
class _Vendor:
    adapter: str
    keys: tuple[str, ...]
    base_url: str
    model: str
    default_model: str


# In the order of the chain. The models are each vendor's good and cheap one as genai-prices 0.2.3
# lists them (US dollars a million tokens in/out): claude-haiku-5-5 0.50/2.50,
# gpt-6-luna 0.20/0.75, gemini-3.8-flash 0.75/3.75; read 2026-11-20.
_VENDORS = (
    _Vendor(
        "anthropic", ("ANTHROPIC_API_KEY",),
        "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "claude-haiku-5-5",
    ),
    _Vendor(
        "openai", ("OPENAI_API_KEY",),
        "OPENAI_BASE_URL", "OPENAI_MODEL", "gpt-6-luna",
    ),
    _Vendor(
        "google", ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "GOOGLE_GEMINI_BASE_URL", "GEMINI_MODEL", "gemini-3.8-flash",
    ),
)  # fmt: skip

KEYS = tuple(key for vendor in _VENDORS for key in vendor.keys)
"""The variables that make a vendor known."""


def detect(environ: Mapping[str, str]) -> Settings:
    """
    Build settings from the environment; every role is served by the one chain.

    Raises:
        ConfigError: No key is set, or a variable cannot be used; lists every fault.
    """
    faults: list[str] = []
    found = [p for vendor in _VENDORS if (p := _provider(vendor, environ, faults))]
    if not found and not faults:
        faults.append(
            f"no provider: set one of {' / '.join(KEYS)}, or write a roles.yaml (or set ROLES_FILE)"
        )
    if found and (primary := environ.get("PRIMARY_PROVIDER")):
        known = {word for p in found for word in (p.name, p.adapter)}
        if primary in known:
            found.sort(key=lambda p: primary not in {p.name, p.adapter})
        else:
            faults.append(
                f"PRIMARY_PROVIDER: {primary[:60]!r} has no key set; "
                f"found are {', '.join(p.name for p in found)}{nearest(primary, known)}"
            )
    if faults:
        raise ConfigError("environment: " + "; ".join(faults), {"faults": faults})
    return Settings(providers={p.name: p for p in found}, roles={}, serves_any_role=True)


def _provider(
    vendor: _Vendor, environ: Mapping[str, str], faults: list[str]
) -> ProviderSettings | None:
    variable = next((name for name in vendor.keys if environ.get(name)), None)
    if variable is None:
        return None
    base_url = environ.get(vendor.base_url) or None
    for name, kind in ((variable, API_KEY), (vendor.base_url, BASE_URL)):
        if environ.get(name) and not kind.accepts(environ[name]):
            faults.append(f"{name} is not {kind.allowed}")
            return None
    # A server of one's own speaks Chat Completions; only OpenAI is sure to speak Responses.
    compatible = (
        vendor.adapter == "openai"
        and base_url is not None
        and urlsplit(base_url).hostname != "api.openai.com"
    )
    return ProviderSettings(
        name=vendor.adapter,
        adapter="openai-chat" if compatible else vendor.adapter,
        model=environ.get(vendor.model) or vendor.default_model,
        api_key=SecretStr(environ[variable]),
        base_url=base_url,
    )

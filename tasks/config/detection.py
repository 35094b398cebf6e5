"""
Settings without a roles file: one chain over each vendor whose key is in the environment.

The variables are those that the vendors' SDKs read. An empty variable counts as not set.
"""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from pydantic import SecretStr

from breakwater.errors import ConfigError, nearest
from tasks import catalogue
from tasks.catalogue import AdapterSpec
from tasks.config.endpoint import API_KEY, BASE_URL
from tasks.config.settings import ProviderSettings, Settings


def _key_variables(specs: Iterable[AdapterSpec]) -> tuple[str, ...]:
    return tuple(key for spec in specs if spec.detection for key in spec.detection.key_variables)


KEYS = _key_variables(catalogue.ADAPTERS.values())
"""The variables that configure the vendors of this package's adapters."""


def detect(environ: Mapping[str, str]) -> Settings:
    """
    Build settings from the environment; each role is served by the one chain.

    Raises:
        ConfigError: No key is set, or a variable cannot be used; lists every fault.
    """
    faults: list[str] = []
    specs = _specs(faults)
    providers = [p for spec in specs if (p := _provider(spec, environ, faults))]
    if not providers and not faults:
        keys = " / ".join(_key_variables(specs))
        faults.append(f"no provider: set one of {keys}, or write a roles.yaml (or set ROLES_FILE)")
    primary = environ.get("PRIMARY_PROVIDER")
    if providers and primary:
        words = {word for p in providers for word in (p.name, p.adapter)}
        if primary in words:
            providers.sort(key=lambda p: primary not in {p.name, p.adapter})
        else:
            faults.append(
                f"PRIMARY_PROVIDER: {primary[:60]!r} has no key set; "
                f"found are {', '.join(p.name for p in providers)}{nearest(primary, words)}"
            )
    if faults:
        raise ConfigError("environment: " + "; ".join(faults), {"faults": faults})
    return Settings(providers={p.name: p for p in providers}, roles={}, serves_any_role=True)


def _specs(faults: list[str]) -> list[AdapterSpec]:
    """Return the adapters that can be detected, those of installed packages last."""
    specs = []
    for name in catalogue.names():
        try:
            spec = catalogue.find(name)
        except catalogue.AdapterSpecError as error:
            faults.append(f"adapter {name!r} {error}")
            continue
        if spec and spec.detection:
            specs.append(spec)
    return specs


def _provider(
    spec: AdapterSpec, environ: Mapping[str, str], faults: list[str]
) -> ProviderSettings | None:
    """Return the provider whose key is set; None without a key, or after a fault."""
    variables = spec.detection
    if variables is None:
        return None
    key = next((name for name in variables.key_variables if environ.get(name)), None)
    if key is None:
        return None
    for name, kind in ((key, API_KEY), (variables.base_url_variable, BASE_URL)):
        if environ.get(name) and not kind.accepts(environ[name]):
            faults.append(f"{name} is not {kind.allowed}")
            return None
    base_url = environ.get(variables.base_url_variable) or None
    adapter = spec.name
    if variables.elsewhere and base_url and urlsplit(base_url).hostname != spec.host:
        adapter = variables.elsewhere
    return ProviderSettings(
        name=spec.name,
        adapter=adapter,
        model=environ.get(variables.model_variable) or variables.default_model,
        api_key=SecretStr(environ[key]),
        base_url=base_url,
    )

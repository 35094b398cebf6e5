"""
The catalogue of adapters: one row holds all that the rest of the code uses of an adapter.

The rows of this package are in `ADAPTERS`. An installed package adds a row by an entry point of
the group `breakwater.adapters`, under the adapter's name; its value is an `AdapterSpec`. Nothing
here imports an adapter or an SDK before `load_class`.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args

from breakwater.calls.params import PARAMS

GROUP = "breakwater.adapters"
"""The group of the entry points by which installed packages add rows."""

CLASS_PATH = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
"""`package.module:Class`."""

MEDIA = frozenset({"image", "document"})
HTTP_LOGGERS = ("httpx2", "httpcore2")
"""At INFO an HTTP library logs addresses; at DEBUG it logs headers, keys among them."""

KeyRule = Literal["always", "without_base_url", "never"]


class AdapterSpecError(ValueError):
    """A package registers an adapter that cannot be used; the message names the package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The environment variables that configure a provider without a roles file."""

    key_variables: tuple[str, ...]
    """The first of these that is set holds the key; if none is set, there is no such provider."""
    base_url_variable: str
    model_variable: str
    default_model: str
    elsewhere: str = ""
    """The adapter to use if the base URL is not at `AdapterSpec.host`; empty: the same adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSpec:
    """One adapter; a row of the catalogue."""

    name: str
    """The value of `adapter:` in a roles file; also the name of the entry point."""
    path: str
    """`package.module:Class`; the class is called with `ProviderSettings`."""
    media: Collection[str] = frozenset()
    """The media that a prompt may contain: `image`, `document`."""
    params_not_taken: Mapping[str, str] = field(default_factory=dict)
    """
    By parameter of ours that the vendor does not take, the reason.

    Such a parameter is a fault if a roles file sets it for this provider alone. If the provider
    inherits it, from a role or from all, the adapter must drop it.
    """
    key_needed: KeyRule = "never"
    """When an entry in a roles file must have an `api_key`."""
    detection: Detection | None = None
    """None: only a roles file can use the adapter."""
    otel_provider: str = ""
    """`gen_ai.provider.name` of OpenTelemetry; empty: the provider's name in the roles file."""
    otel_provider_by_host: Mapping[str, str] = field(default_factory=dict)
    """
    For an API that many vendors have: `gen_ai.provider.name` by the end of the base URL's host.

    For a host that is not here, it is the provider's name in the roles file.
    """
    host: str = ""
    """The vendor's own host, the default without a `base_url`; empty: unknown."""
    price_vendor: str = ""
    """The vendor's id in `genai-prices`, used if the base URL names no vendor; empty: none."""
    loggers: Collection[str] = ()
    """Loggers that write prompts or a line per request; they are held at WARNING."""
    requirement: str = ""
    """The argument of `pip install` if a module of the adapter is missing."""


_OPENAI_COMPATIBLE = {
    "api.deepseek.com": "deepseek", "api.groq.com": "groq", "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai", "api.openai.com": "openai", "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai", ".openai.azure.com": "azure.ai.openai",
}  # fmt: skip

# In the order of the detected chain. Each default model is its vendor's good and cheap one
# as genai-prices 0.2.3 lists them (US dollars per million tokens in/out): claude-haiku-5-5
# 0.50/2.50, gpt-6-luna 0.20/0.75, gemini-3.8-flash 0.75/3.75; read 2026-11-20.
# Parameters: the signatures of `messages.create` in anthropic 2.11 and `responses.create` in
# openai 3.52.
# Names for OpenTelemetry: semantic-conventions-genai, docs/gen-ai/client-inference.md (2026-10).
_ROWS = (
    AdapterSpec(
        name="anthropic",
        path="tasks.providers.anthropic:AnthropicProvider",
        media=MEDIA,
        params_not_taken=dict.fromkeys(
            ("temperature", "top_p", "seed"), "Anthropic's API of 2026-10-21 does not take it"
        ),
        key_needed="always",
        detection=Detection(
            key_variables=("ANTHROPIC_API_KEY",),
            base_url_variable="ANTHROPIC_BASE_URL",
            model_variable="ANTHROPIC_MODEL",
            default_model="claude-haiku-5-5",
        ),
        otel_provider="anthropic",
        host="api.anthropic.com",
        price_vendor="anthropic",
        loggers=("anthropic",),
        requirement="breakwater-llm[worker]",
    ),
    AdapterSpec(
        name="openai",
        path="tasks.providers.openai:OpenAIProvider",
        media=MEDIA,
        params_not_taken=dict.fromkeys(
            ("stop", "seed"), "OpenAI's Responses API does not take it (adapter openai-chat does)"
        ),
        key_needed="always",
        detection=Detection(
            key_variables=("OPENAI_API_KEY",),
            base_url_variable="OPENAI_BASE_URL",
            model_variable="OPENAI_MODEL",
            default_model="gpt-6-luna",
            # Other servers have Chat Completions; only OpenAI is sure to have Responses.
            elsewhere="openai-chat",
        ),
        otel_provider="openai",
        host="api.openai.com",
        price_vendor="openai",
        loggers=("openai",),
        requirement="breakwater-llm[worker]",
    ),
    AdapterSpec(
        name="openai-chat",
        path="tasks.providers.openai_chat:OpenAIChatProvider",
        media=frozenset({"image"}),
        key_needed="without_base_url",
        otel_provider="openai",
        otel_provider_by_host=_OPENAI_COMPATIBLE,
        host="api.openai.com",
        loggers=("openai",),
        requirement="breakwater-llm[worker]",
    ),
    AdapterSpec(
        name="google",
        path="tasks.providers.google:GoogleProvider",
        media=MEDIA,
        key_needed="always",
        detection=Detection(
            key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            base_url_variable="GOOGLE_GEMINI_BASE_URL",
            model_variable="GEMINI_MODEL",
            default_model="gemini-3.8-flash",
        ),
        otel_provider="gcp.gemini",
        host="generativelanguage.googleapis.com",
        price_vendor="google",
        loggers=("google_genai",),
        requirement="breakwater-llm[worker]",
    ),
)

ADAPTERS: Mapping[str, AdapterSpec] = {spec.name: spec for spec in _ROWS}
"""The adapters of this package. Another package's row of such a name is not used."""

_specs: dict[str, AdapterSpec] = dict(ADAPTERS)


def spec_of(adapter: str) -> AdapterSpec:
    """
    Return the row of an adapter that a roles file names.

    Returns:
        A row of defaults for a `package.module:Class`, which has no row.

    Raises:
        AdapterSpecError: As `find` does.
    """
    spec = _specs.get(adapter)
    if spec is None:
        spec = _specs[adapter] = find(adapter) or AdapterSpec(name=adapter, path=adapter)
    return spec


def find(adapter: str) -> AdapterSpec | None:
    """
    Return the row that this package or an installed one has under this name; None without one.

    Raises:
        AdapterSpecError: Two packages register the name, or the row cannot be used.
    """
    if adapter in ADAPTERS:
        return ADAPTERS[adapter]
    points = list(entry_points(group=GROUP, name=adapter))
    if not points:
        return None
    if len(points) > 1:
        packages = " and ".join(sorted(_shown(point) for point in points))
        raise AdapterSpecError(f"is registered by {packages}; uninstall all but one")
    _specs[adapter] = _load(points[0])
    return _specs[adapter]


def names() -> tuple[str, ...]:
    """Return the names of all adapters, those of installed packages last."""
    installed = {point.name for point in entry_points(group=GROUP)} - ADAPTERS.keys()
    return *ADAPTERS, *sorted(installed)


def load_class(adapter: str) -> Any:
    """
    Import an adapter's class, after its SDK's loggers are held back.

    Raises:
        ImportError: A module is missing; the message has the row's `requirement`, if there is one.
    """
    spec = spec_of(adapter)
    hold_loggers((*HTTP_LOGGERS, *spec.loggers))
    module, _, attribute = spec.path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if not spec.requirement:
            raise
        hint = f"{error}; pip install '{spec.requirement}'"
        raise ModuleNotFoundError(hint, name=error.name) from error


def loggers() -> frozenset[str]:
    """Return the loggers to hold back: those of every row that this process has read so far."""
    return frozenset(HTTP_LOGGERS).union(*(spec.loggers for spec in _specs.values()))


def hold_loggers(names: Iterable[str]) -> None:
    """Raise loggers to WARNING at least: at DEBUG the SDKs log whole requests."""
    for name in names:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))


def _load(point: EntryPoint) -> AdapterSpec:
    """Read one installed package's row, and check it."""
    try:
        spec = point.load()
    except Exception as error:
        reason = type(error).__name__
        if isinstance(error, ImportError | AttributeError | TypeError):
            reason += f": {str(error)[:200]}"
        raise AdapterSpecError(f"cannot be read from {_shown(point)} ({reason})") from error
    if not isinstance(spec, AdapterSpec):
        kind = type(spec).__name__
        raise AdapterSpecError(f"cannot be read from {_shown(point)}: {kind} is not AdapterSpec")
    if faults := _faults(spec, point.name):
        raise AdapterSpecError(f"cannot be read from {_shown(point)}: {'; '.join(faults)}")
    return spec


def _shown(point: EntryPoint) -> str:
    package = "an unknown package"
    if point.dist:
        package = f"{point.dist.name} {point.dist.version}"
    return f"{package} (entry point {point.name!r} = {point.value!r})"


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_class_path(value: object) -> bool:
    return isinstance(value, str) and CLASS_PATH.fullmatch(value) is not None


def _are_strings(value: object) -> bool:
    if not isinstance(value, tuple | list | set | frozenset):
        return False
    return all(isinstance(item, str) for item in value)


def _are_media(value: object) -> bool:
    if not isinstance(value, tuple | list | set | frozenset):
        return False
    return MEDIA.issuperset(value)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) and _are_strings([*value, *value.values()])


def _are_parameters(value: object) -> bool:
    return isinstance(value, Mapping) and _is_table(value) and PARAMS.keys() >= value.keys()


def _is_key_rule(value: object) -> bool:
    return value in get_args(KeyRule)


def _is_detection(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, Detection):
        return False
    others = (value.base_url_variable, value.model_variable, value.default_model, value.elsewhere)
    return bool(value.key_variables) and _are_strings(value.key_variables) and _are_strings(others)


_CHECKS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "path": (_is_class_path, "package.module:Class"),
    "media": (_are_media, f"a set out of {', '.join(sorted(MEDIA))}"),
    "params_not_taken": (_are_parameters, f"a mapping of {', '.join(PARAMS)} to reasons"),
    "key_needed": (_is_key_rule, f"one of {', '.join(get_args(KeyRule))}"),
    "detection": (_is_detection, "a Detection of strings, or None"),
    "otel_provider": (_is_string, "a string"),
    "otel_provider_by_host": (_is_table, "a mapping of hosts to names"),
    "host": (_is_string, "a string"),
    "price_vendor": (_is_string, "a string"),
    "loggers": (_are_strings, "a tuple of names"),
    "requirement": (_is_string, "a string"),
}
"""By field of a row, the check of its value, and what is allowed; mypy does not check packages."""


def _faults(spec: AdapterSpec, name: str) -> list[str]:
    """Return the faults of another package's row."""
    faults = [
        f"{key}: {getattr(spec, key)!r} is not {allowed}"
        for key, (is_valid, allowed) in _CHECKS.items()
        if not is_valid(getattr(spec, key))
    ]
    if spec.name != name:
        faults.append(f"name: {spec.name!r} is not {name!r}, the name of the entry point")
    return faults

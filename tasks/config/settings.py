"""
What a worker knows of providers and roles, frozen: no file, no environment, no I/O here.

Built by `tasks.answering.settings_loader`, read by routing, the registry and `breakwater doctor`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from breakwater.calls.value_types import NAME
from breakwater.errors import InvalidOption, UnknownRole
from tasks.catalogue import spec_of

if TYPE_CHECKING:  # producers import this module too, and pydantic costs 50 ms
    from pydantic import SecretStr

DEADLINE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long a call may take to connect, and in all; a stream also to say something."""

    connect_s: float = 5.0
    total_s: float = 120.0
    first_token_s: float | None = None
    """To a stream's first delta; None: as long as the whole call."""
    between_tokens_s: float | None = 30.0
    """From one delta of a stream to the next."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a provider's breaker opens, and when it closes again."""

    fail_max: int = 5
    """Consecutive failures that open it."""
    reset_timeout_s: float = 30.0
    """From open to half-open."""
    success_threshold: int = 2
    """Successes in half-open that close it."""
    max_probes: int | None = None
    """Calls at once in half-open; None: as many as `success_threshold`."""
    retry_after_max_s: float = 3600.0
    """The longest Retry-After that is believed."""
    open_factor: float = 1.0
    """The open time grows by this factor with every trip in a row; 1 is off."""
    open_max_s: float = 600.0
    """Where that growth ends."""
    open_jitter: float = 0.0
    """Up to this share of it is added to the open time at random; 0 is off."""
    stable_s: float = 300.0
    """Each such time spent closed forgives one trip in a row."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One vendor, account and default model."""

    name: str
    adapter: str
    """`anthropic`, `openai`, `openai-chat`, `google`, or `package.module:Class`."""
    model: str
    api_key: "SecretStr | None" = None
    """None: the server asks for no key."""
    base_url: str | None = None
    """None: the vendor's own."""
    timeout: Timeout = Timeout()
    params: Mapping[str, Any] = field(default_factory=dict)
    prompt_cache: bool = False
    inputs: frozenset[str] | None = None
    """What media it takes, `image` and `document`; None: what its adapter's vendor does."""
    breaker: BreakerSettings = BreakerSettings()
    prices: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)
    """By model, `*` for any: US dollars per million tokens, by the names in a usage."""

    @property
    def media(self) -> frozenset[str]:
        """The kinds of media that a prompt for it may have."""
        if self.inputs is not None:
            return self.inputs
        return frozenset(spec_of(self.adapter).media)


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to try: a provider, and the model to ask there."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """That equal calls of a role share an answer."""

    ttl_s: int
    """How long an answer is kept."""


@dataclass(frozen=True, slots=True)
class Role:
    """What a task names: the targets to try in order, and how to ask them."""

    name: str
    chain: tuple[Target, ...]
    system: str | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float = DEADLINE_S
    """From enqueue to the last moment an answer is of use."""
    drop_params: bool = True
    """A parameter that a target does not take is left out there; False: it is a fault."""
    stream_restart: bool = True
    """A stream that breaks after its first token begins anew with the next target, and says so."""
    cache: CacheSettings | None = None
    """None: every call is made."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the roles file or the environment says."""

    providers: Mapping[str, ProviderSettings]
    roles: Mapping[str, Role]
    params: Mapping[str, Any] = field(default_factory=dict)
    default_provider: str | None = None
    """The last resort of every chain; it is in the chains already."""
    source: str = "environment"
    """The roles file's path, or `environment`."""
    version: str = "environment"
    """The first 12 hex digits of the file's SHA-256, or `environment`."""
    serves_any_role: bool = False
    """No roles are named: every name is a role over all providers, in their order."""
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Optional providers that no chain has here, with the variables that are not set."""
    removed: frozenset[str] = frozenset()
    """Roles that this worker has served, and that a reload has taken away."""

    def role(self, name: str) -> Role:
        """
        Return the role of this name.

        Raises:
            UnknownRole: Naming the nearest known one.
        """
        if name in self.roles:
            return self.roles[name]
        if not self.serves_any_role:
            raise UnknownRole.named(name, self.roles, self.source)
        if not NAME.fullmatch(name):
            raise UnknownRole(f"{name[:80]!r} cannot name a role; allowed is {NAME.pattern}")
        return Role(name, tuple(Target(p.name, p.model) for p in self.providers.values()))

    def params_for(
        self, target: Target, role: Role, call_params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Merge the parameters of one call, key by key: global < provider < role < call."""
        provider = self.providers[target.provider]
        return {**self.params, **provider.params, **role.params, **call_params}

    def unsupported_params(self, role: Role, params: Iterable[str]) -> dict[str, str]:
        """Say of parameters which target of the role does not take them, and why."""
        found: dict[str, str] = {}
        for target in role.chain:
            refused = spec_of(self.providers[target.provider].adapter).params_not_taken
            for name in refused.keys() & set(params):
                found.setdefault(name, f"provider {target.provider!r}: {refused[name]}")
        return found

    def check_params(self, role: Role, params: Iterable[str]) -> None:
        """
        Refuse what a target of the role would have to leave out, if the role says so.

        Raises:
            InvalidOption: Naming each such parameter and a provider that does not take it.
        """
        if role.drop_params or not (unsupported_params := self.unsupported_params(role, params)):
            return
        faults = [
            f"params.{name}: {why}; leave it out, or set drop_params: true for role {role.name!r}"
            for name, why in sorted(unsupported_params.items())
        ]
        raise InvalidOption("; ".join(faults), {"faults": faults})

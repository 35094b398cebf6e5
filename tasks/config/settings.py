"""
A worker's settings: providers, roles, parameters, frozen. Nothing here does I/O.

`tasks.answering.settings_loader` builds them; the walk over a chain, the registry of providers and
`breakwater doctor` read them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from breakwater.calls.value_types import NAME
from breakwater.errors import InvalidOption, UnknownRole
from tasks.catalogue import spec_of

if TYPE_CHECKING:  # producers import this module too, and pydantic costs 50 ms
    from pydantic import SecretStr

DEADLINE_S = 24 * 3600.0
Params = Mapping[str, object]
"""Parameters of a call by name; `breakwater.calls.params` lists them, with their types."""


@dataclass(frozen=True, slots=True)
class Timeout:
    """Time limits of one call: to connect, in all, and for a stream between its deltas."""

    connect_s: float = 5.0
    total_s: float = 120.0
    first_token_s: float | None = None
    """Until the first delta of a stream; None: the limit of the whole call."""
    between_tokens_s: float | None = 30.0
    """From one delta of a stream to the next; None: the limit of the whole call."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a provider's breaker opens, and when it closes again."""

    fail_max: int = 5
    """Consecutive failures that open the breaker."""
    reset_timeout_s: float = 30.0
    """Time from open to half-open."""
    success_threshold: int = 2
    """Successes in half-open that close the breaker."""
    max_probes: int | None = None
    """Calls at once in half-open; None: `success_threshold`."""
    retry_after_max_s: float = 3600.0
    """A longer Retry-After is cut to this."""
    open_factor: float = 1.0
    """Each further trip in a row multiplies the open time by this; 1 is off."""
    open_max_s: float = 600.0
    """The longest open time after that."""
    open_jitter: float = 0.0
    """Up to this share is added to the open time at random; 0 is off."""
    stable_s: float = 300.0
    """Each period of this length in closed takes one trip off the count."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One vendor, account and default model."""

    name: str
    adapter: str
    """`anthropic`, `openai`, `openai-chat`, `google`, or `package.module:Class`."""
    model: str
    api_key: "SecretStr | None" = None
    """None: the server needs no key."""
    base_url: str | None = None
    """None: the vendor's URL."""
    timeout: Timeout = Timeout()
    params: Params = field(default_factory=dict)
    prompt_cache: bool = False
    inputs: frozenset[str] | None = None
    """The kinds of media that it takes, `image` and `document`; None: those of its adapter."""
    breaker: BreakerSettings = BreakerSettings()
    prices: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)
    """By model, `*` for any model: US dollars per million tokens, by the names in a usage."""

    @property
    def media(self) -> frozenset[str]:
        """The kinds of media that its prompts may have."""
        if self.inputs is not None:
            return self.inputs
        return frozenset(spec_of(self.adapter).media)


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and one of its models."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Equal calls of a role share an answer."""

    ttl_s: int
    """The time for which an answer is kept."""


@dataclass(frozen=True, slots=True)
class Role:
    """The targets that a task tries, in order, and the settings of its calls."""

    name: str
    chain: tuple[Target, ...]
    system: str | None = field(default=None, repr=False)
    params: Params = field(default_factory=dict)
    deadline_s: float = DEADLINE_S
    """Time from enqueueing to the last moment at which an answer is of use."""
    drop_params: bool = True
    """Leave out parameters that a target does not take; False: they are faults."""
    stream_restart: bool = True
    """A stream that breaks after its first token sends a restart event, and starts over with the
    next target."""
    cache: CacheSettings | None = None
    """None: no answer is shared."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole roles file, or what the environment configures."""

    providers: Mapping[str, ProviderSettings]
    roles: Mapping[str, Role]
    params: Params = field(default_factory=dict)
    default_provider: str | None = None
    """The last target of each chain; the chains contain it already."""
    source: str = "environment"
    """The roles file's path, or `environment`."""
    version: str = "environment"
    """The first 12 hex digits of the file's SHA-256, or `environment`."""
    serves_any_role: bool = False
    """No roles are listed: each name is a role over all providers, in their order."""
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Optional providers that are left out of the chains, with the variables that are not set."""
    removed: frozenset[str] = frozenset()
    """Roles that this worker served until a reload removed them."""

    def role(self, name: str) -> Role:
        """
        Return the role of this name.

        Raises:
            UnknownRole: Naming the nearest known role.
        """
        if name in self.roles:
            return self.roles[name]
        if not self.serves_any_role:
            raise UnknownRole.named(name, self.roles, self.source)
        if not NAME.fullmatch(name):
            raise UnknownRole(f"{name[:80]!r} cannot name a role; allowed is {NAME.pattern}")
        return Role(name, tuple(Target(p.name, p.model) for p in self.providers.values()))

    def params_for(self, target: Target, role: Role, call_params: Params) -> dict[str, object]:
        """Merge the parameters of one call, key by key: global < provider < role < call."""
        provider = self.providers[target.provider]
        return {**self.params, **provider.params, **role.params, **call_params}

    def unsupported_params(self, role: Role, params: Iterable[str]) -> dict[str, str]:
        """Return the parameters that a target of the role does not take, each with the reason."""
        reasons: dict[str, str] = {}
        for target in role.chain:
            not_taken = spec_of(self.providers[target.provider].adapter).params_not_taken
            for name in not_taken.keys() & set(params):
                reasons.setdefault(name, f"provider {target.provider!r}: {not_taken[name]}")
        return reasons

    def check_params(self, role: Role, params: Iterable[str]) -> None:
        """
        Check that each target of the role takes these parameters, if the role drops none.

        Raises:
            InvalidOption: Naming each parameter that is not taken, and a provider of that target.
        """
        if role.drop_params:
            return
        advice = f"leave it out, or set drop_params: true for role {role.name!r}"
        faults = [
            f"params.{name}: {reason}; {advice}"
            for name, reason in sorted(self.unsupported_params(role, params).items())
        ]
        if faults:
            raise InvalidOption("; ".join(faults), {"faults": faults})

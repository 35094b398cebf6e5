"""
Read the roles file: from YAML to settings, or to one error that lists every fault.

The tables at the head hold the rules. A value that breaks a rule becomes a fault, which names its
line, the allowed values and the nearest known word. Reading goes on without that value, and all
faults are raised together at the end.
"""

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydantic import SecretStr

from breakwater.calls.params import PARAMS
from breakwater.calls.value_types import FLAG, NAME, number, seconds, some_of, whole
from breakwater.config.document import BROKEN, Faults, Node, Unset, at, parse
from breakwater.config.reader import TEXT, NodeReader, Values, nearest_to
from tasks import catalogue
from tasks.config import unsupported_params
from tasks.config.endpoint import API_KEY, BASE_URL
from tasks.config.settings import (
    BreakerSettings,
    CacheSettings,
    ProviderSettings,
    Role,
    Settings,
    Target,
    Timeout,
)
from tasks.config.shared_page import version_of

_DAY_S = 86_400
_MAX_DEPTH = 50  # of roles that continue with other roles

_PROVIDER = {
    "model": TEXT,
    "api_key": API_KEY,
    "base_url": BASE_URL,
    "prompt_cache": FLAG,
    "optional": FLAG,
    "inputs": some_of("image", "document"),
}
_TIMEOUT = {
    "connect_s": seconds(600),
    "total_s": seconds(_DAY_S),
    "first_token_s": seconds(_DAY_S),
    "between_tokens_s": seconds(_DAY_S),
}
_BREAKER = {
    "fail_max": whole(1, 10_000),
    "reset_timeout_s": seconds(_DAY_S),
    "success_threshold": whole(1, 1_000),
    "max_probes": whole(1, 1_000),
    "retry_after_max_s": number(0, 7 * _DAY_S),
    "open_factor": number(1, 100),
    "open_max_s": seconds(7 * _DAY_S),
    "open_jitter": number(0, 1),
    "stable_s": seconds(7 * _DAY_S),
}
_PRICES = {
    kind: number(0, 100_000, "of US dollars per million tokens ")
    for kind in ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens")
}
_ROLE = {
    "system": TEXT,
    "deadline_s": seconds(30 * _DAY_S),
    "stream_restart": FLAG,
    "drop_params": FLAG,
}
_CACHE = {"ttl_s": whole(1, 30 * _DAY_S)}
_LINK = {"provider": TEXT, "model": TEXT, "role": TEXT}

_TOP_KEYS = ("providers", "params", "default_provider", "roles")
_PROVIDER_KEYS = (*_PROVIDER, "timeout", "params", "breaker", "prices")
_ROLE_KEYS = ("chain", *_ROLE, "params", "cache")

LeftOut = Mapping[str, tuple[str, ...]]
"""Optional providers that are left out, by name, with the variables that are not set."""
SectionReader = Callable[[Node, Collection[str], Faults], object]
"""Checks a section that another package owns. It takes the names of the roles, and adds to the
faults; its result is not used."""


def check(
    content: bytes,
    path: Path,
    environ: Mapping[str, str],
    sections: Mapping[str, SectionReader],
) -> Settings:
    """
    Check the content of a roles file.

    Args:
        path: The file's name in messages.
        sections: Readers of the top-level keys that other packages own, by key.

    Raises:
        ConfigError: Listing every fault, by line.
    """
    faults = Faults(path)
    root = parse(content, path, environ, faults)
    settings = _RolesFile(faults, sections).settings(root, str(path), version_of(content))
    faults.raise_if_any()
    return settings


class _Link(NamedTuple):
    """One entry of a chain: a target, or the name of a role whose chain continues this one."""

    line: int
    where: str
    to: Target | str


class _RolesFile(NodeReader):
    """
    The tree of one roles file.

    Args:
        faults: Collects what is wrong.
        sections: Readers of the top-level keys that other packages own.
    """

    def __init__(self, faults: Faults, sections: Mapping[str, SectionReader]) -> None:
        super().__init__(faults)
        self._sections = sections

    def settings(self, root: Node, source: str, version: str) -> Settings:
        if "provider" in root.entries and "providers" not in root.entries:
            return self._single_provider(root, source, version)
        top = self.mapping(root, "", (*_TOP_KEYS, *self._sections))
        providers = {
            name: self._provider(name, node, f"providers.{name}", "adapter")
            for name, node in self._named("providers", top, root).items()
        }
        default = self.known_name("provider", top, "", "default_provider", providers)
        roles = self._named("roles", top, root)
        for key in top.keys() & self._sections.keys():
            self._sections[key](top[key], roles, self.faults)
        left_out = self._left_out(top)
        served = self._served(self._roles(roles, providers, default), top, left_out)
        if default in left_out:
            default = None
        settings = Settings(
            providers={name: each for name, each in providers.items() if name not in left_out},
            roles=served,
            params=self._params(top, ""),
            default_provider=default,
            source=source,
            version=version,
            left_out=left_out,
        )
        unsupported_params.check(settings, top, self.faults)
        return settings

    def _left_out(self, top: Mapping[str, Node]) -> LeftOut:
        """Return the optional providers whose variables are not set; drop the faults about these.

        A variable that another part of the file needs too stays a fault.
        """
        unset: dict[str, frozenset[Unset]] = {}
        needed = frozenset[Unset]().union(
            *(node.unset for key, node in top.items() if key != "providers")
        )
        for name, node in _entries(top, "providers").items():
            optional = node.entries.get("optional")
            if node.unset and optional and optional.value is True:
                unset[name] = node.unset
            else:
                needed |= node.unset
        for each in unset.values():
            self.faults.excuse(each - needed)
        return {
            name: tuple(sorted({each.variable for each in of}))
            for name, of in unset.items()
            if not of & needed
        }

    def _served(
        self, roles: Mapping[str, Role], top: Mapping[str, Node], left_out: LeftOut
    ) -> dict[str, Role]:
        """Return the roles without targets that are left out; an empty chain is a fault."""
        if left_out and left_out.keys() == _entries(top, "providers").keys():
            self._none_left(top["providers"].line, left_out)
            return dict(roles)
        served = {}
        for name, role in roles.items():
            chain = tuple(target for target in role.chain if target.provider not in left_out)
            if role.chain and not chain:
                gone = {target.provider: left_out[target.provider] for target in role.chain}
                line = _entries(top, "roles")[name].line
                self._none_left(line, gone, f"roles.{name}.chain")
            served[name] = replace(role, chain=chain)
        return served

    def _none_left(self, line: int, left_out: LeftOut, where: str = "providers") -> None:
        """Add the fault that all providers are left out, with the variables to set."""
        names = ", ".join(f"{name} ({', '.join(unset)})" for name, unset in left_out.items())
        reason = f"optional, and left out while a variable is not set: {names}"
        message = f"no provider is left; {reason}; set one of these, or add a provider"
        self.faults.add(line, where, message)

    def _single_provider(self, root: Node, source: str, version: str) -> Settings:
        """Read the short form of the file: the keys of one provider at the top, and no roles."""
        name = str(root.entries["provider"].as_text).rpartition(":")[2]
        provider = self._provider(name, root, "", "provider")
        return Settings({name: provider}, {}, source=source, version=version, serves_any_role=True)

    def _named(self, key: str, top: Mapping[str, Node], root: Node) -> dict[str, Node]:
        """Return the entries of `providers` or `roles`; none at all is a fault."""
        node = top.get(key)
        if node is None:
            if root.is_mapping:
                self.faults.add(root.line, key, "missing; there must be at least one")
            return {}
        if node.value is BROKEN:
            return {}
        if not node.entries:
            self.faults.add(node.line, key, f"{node.shown} is not a mapping of names to {key}")
            return {}
        for name, child in node.entries.items():
            if not NAME.fullmatch(name):
                message = f"{name[:64]!r} cannot be a name; allowed is {NAME.pattern}"
                self.faults.add(child.line, key, message)
        return node.entries

    def _provider(self, name: str, node: Node, where: str, adapter_key: str) -> ProviderSettings:
        entries = self.mapping(node, where, (adapter_key, *_PROVIDER_KEYS))
        adapter = self._adapter(entries, where, adapter_key)
        values = self.values(entries, where, _PROVIDER)
        for key in (adapter_key, "model"):
            if node.is_mapping and key not in entries:
                self.faults.add(node.line, where, f"{key} is missing")
        return ProviderSettings(
            name=name,
            adapter=adapter,
            model=values.get("model", ""),
            api_key=self._api_key(entries, values, adapter, node.line, where),
            base_url=values.get("base_url"),
            timeout=Timeout(**self.section(entries, where, "timeout", _TIMEOUT)),
            params=self._params(entries, where, catalogue.spec_of(adapter).params_not_taken),
            prompt_cache=values.get("prompt_cache", False),
            inputs=values.get("inputs"),
            breaker=BreakerSettings(**self.section(entries, where, "breaker", _BREAKER)),
            prices=self._prices(entries, where),
        )

    def _adapter(self, entries: Mapping[str, Node], where: str, key: str) -> str:
        """Return the adapter's name; empty if it is missing or cannot be used."""
        adapter: str = self.values(entries, where, {key: TEXT}).get(key, "")
        if not adapter:
            return ""
        node = entries[key]
        problem = _adapter_problem(adapter, node)
        if not problem:
            return adapter
        self.faults.add(node.line, at(where, key), f"{node.shown} {problem}")
        return ""

    def _api_key(
        self,
        entries: Mapping[str, Node],
        values: Values,
        adapter: str,
        line: int,
        where: str,
    ) -> SecretStr | None:
        rule = catalogue.spec_of(adapter).key_needed
        needed = rule == "always" or (rule == "without_base_url" and "base_url" not in entries)
        if "api_key" not in entries and needed:
            hint = "only openai-chat with a base_url can do without"
            self.faults.add(line, where, f"api_key is missing; {hint}")
        key = values.get("api_key", "none")
        if key != "none":
            return SecretStr(key)
        if needed and "api_key" in values:
            hint = "only openai-chat with a base_url may have none"
            self.faults.add(entries["api_key"].line, at(where, "api_key"), hint)
        return None

    def _prices(self, entries: Mapping[str, Node], where: str) -> dict[str, dict[str, Decimal]]:
        node, where = entries.get("prices"), at(where, "prices")
        if node is None or node.value is BROKEN:
            return {}
        if not node.is_mapping:
            allowed = "a mapping of models, or '*' for any, to their prices"
            self.faults.add(node.line, where, f"{node.shown} is not {allowed}")
            return {}
        prices = {}
        for model, child in node.entries.items():
            values = self.section(node.entries, where, model, _PRICES)
            for kind in ("input_tokens", "output_tokens"):
                if child.is_mapping and kind not in child.entries:
                    self.faults.add(child.line, at(where, model), f"{kind} is missing")
            # From the text: 0.1 means a tenth, not the nearest binary fraction.
            prices[model] = {kind: Decimal(str(price)) for kind, price in values.items()}
        return prices

    def _roles(
        self,
        nodes: Mapping[str, Node],
        providers: Mapping[str, ProviderSettings],
        default: str | None,
    ) -> dict[str, Role]:
        entries = {
            name: self.mapping(node, f"roles.{name}", _ROLE_KEYS) for name, node in nodes.items()
        }
        links = {
            name: self._links(entries[name], nodes[name], f"roles.{name}", providers, nodes)
            for name in nodes
        }
        chains: dict[str, tuple[Target, ...]] = {}
        for name in nodes:
            self._flatten(name, links, (), chains)
        if default:
            last = Target(default, providers[default].model)
            chains = {name: _with_last(chain, last) for name, chain in chains.items()}
        return {
            name: Role(
                name,
                chain=chains[name],
                params=self._params(entries[name], f"roles.{name}"),
                cache=self._cache(entries[name], f"roles.{name}"),
                **self.values(entries[name], f"roles.{name}", _ROLE),
            )
            for name in nodes
        }

    def _cache(self, entries: Mapping[str, Node], where: str) -> CacheSettings | None:
        values, node = self.section(entries, where, "cache", _CACHE), entries.get("cache")
        if node and node.is_mapping and "ttl_s" not in node.entries:
            self.faults.add(node.line, at(where, "cache"), "ttl_s is missing")
        if not values:
            return None
        return CacheSettings(**values)

    def _links(
        self,
        entries: Mapping[str, Node],
        role: Node,
        where: str,
        providers: Mapping[str, ProviderSettings],
        roles: Collection[str],
    ) -> list[_Link]:
        chain = entries.get("chain")
        if chain is None:
            if role.is_mapping:
                self.faults.add(role.line, where, "chain is missing")
            return []
        if chain.value is BROKEN:
            return []
        where = at(where, "chain")
        if not isinstance(chain.value, list) or not chain.value:
            allowed = "a list of providers, such as [claude, {provider: gpt, model: …}, {role: …}]"
            self.faults.add(chain.line, where, f"{chain.shown} is not {allowed}")
            return []
        links = []
        for position, item in enumerate(chain.value, 1):
            to = self._link(item, f"{where}[{position}]", providers, roles)
            if to is not None:
                links.append(_Link(item.line, f"{where}[{position}]", to))
        return links

    def _link(
        self,
        item: Node,
        where: str,
        providers: Mapping[str, ProviderSettings],
        roles: Collection[str],
    ) -> Target | str | None:
        """Return a target, or the name of a role that continues the chain; None after a fault."""
        if not item.is_mapping:
            provider = self.known_name("provider", {where: item}, "", where, providers)
            if provider is None:
                return None
            return Target(provider, providers[provider].model)
        entries = self.mapping(item, where, _LINK)
        if "role" in entries and len(entries) == 1:
            return self.known_name("role", entries, where, "role", roles)
        if "role" in entries or "provider" not in entries:
            self.faults.add(item.line, where, "needs provider (and model), or role alone")
            return None
        provider = self.known_name("provider", entries, where, "provider", providers)
        values = self.values(entries, where, {"model": TEXT})
        if provider is None or "model" in entries.keys() - values.keys():
            return None
        return Target(provider, values.get("model", providers[provider].model))

    def _flatten(
        self,
        role: str,
        links: Mapping[str, list[_Link]],
        trail: tuple[str, ...],
        chains: dict[str, tuple[Target, ...]],
    ) -> tuple[Target, ...]:
        """Return the targets of a role, with those of each role that its chain names."""
        if role in chains:
            return chains[role]
        trail = (*trail, role)
        chain: list[Target] = []
        for link in links[role]:
            for target in self._targets(link, links, trail, chains):
                if target not in chain:
                    chain.append(target)
                    continue
                twice = f"provider {target.provider!r} with the same model is in the chain twice"
                self.faults.add(link.line, link.where, twice)
        chains[role] = tuple(chain)
        return chains[role]

    def _targets(
        self,
        link: _Link,
        links: Mapping[str, list[_Link]],
        trail: tuple[str, ...],
        chains: dict[str, tuple[Target, ...]],
    ) -> tuple[Target, ...]:
        """Return the targets of one entry of a chain; none after a fault."""
        line, where, to = link
        if isinstance(to, Target):
            return (to,)
        if to in trail:
            circle = " -> ".join([*trail[trail.index(to) :], to])
            self.faults.add(line, where, f"a circle of roles: {circle}")
            return ()
        if len(trail) == _MAX_DEPTH:
            self.faults.add(line, where, f"more than {_MAX_DEPTH} roles, one inside the other")
            return ()
        return self._flatten(to, links, trail, chains)

    def _params(
        self,
        entries: Mapping[str, Node],
        where: str,
        not_taken: Mapping[str, str] = MappingProxyType({}),
    ) -> Values:
        params = self.section(entries, where, "params", PARAMS)
        for name in params.keys() & not_taken.keys():
            line = _entries(entries, "params")[name].line
            where_set = at(at(where, "params"), name)
            self.faults.add(line, where_set, f"{not_taken[name]}; remove it here")
        return params


def _entries(top: Mapping[str, Node], key: str) -> Mapping[str, Node]:
    """Return the entries of the mapping under a key; empty if there is none."""
    if key not in top:
        return {}
    return top[key].entries


def _with_last(chain: tuple[Target, ...], last: Target) -> tuple[Target, ...]:
    if last in chain:
        return chain
    return (*chain, last)


def _adapter_problem(adapter: str, node: Node) -> str:
    """Return why an adapter cannot be used; empty if it can."""
    if adapter in catalogue.ADAPTERS:
        return ""  # its SDK is imported when the first provider is built
    try:
        spec = catalogue.find(adapter)
    except catalogue.AdapterSpecError as error:
        return str(error)
    path = adapter
    if spec:
        path = spec.path
    elif not catalogue.CLASS_PATH.fullmatch(adapter):
        names = catalogue.names()
        there_are = f"there are {', '.join(names)}, or package.module:Class"
        return f"is not a valid adapter; {there_are}{nearest_to(node, names)}"
    module, _, attribute = path.partition(":")
    try:
        if callable(getattr(importlib.import_module(module), attribute)):
            return ""
    except Exception as error:  # noqa: BLE001 - the user's own module may raise anything
        return f"cannot be imported ({type(error).__name__})"
    return "is not a class"

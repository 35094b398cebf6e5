"""
Who can be asked: the configured providers, built when first needed, and their breakers.

An adapter's module imports its vendor's SDK (0.3 to 0.7 s, 40 to 66 MB), so only those configured
are imported, and a provider is built in the process that uses it: a client used before a fork gave
one process another process's answer.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module

import structlog

from breaker import BreakerOpen, Breakers, BreakerState, SharedCircuitBreaker
from breakwater.errors import BreakwaterError, HostFault, ProviderError, ProviderTimeout, nearest
from tasks.admission.passes import Gates, Pass, pair_name, settle
from tasks.config import BreakerSettings, ProviderSettings, Role, Settings, Target
from tasks.ledger.prices import PriceList
from tasks.providers.base import Provider
from tasks.providers.http.host_faults import not_built
from tasks.providers.models import unlisted

ADAPTERS = {
    "anthropic": "tasks.providers.anthropic:AnthropicProvider",
    "openai": "tasks.providers.openai:OpenAIProvider",
    "openai-chat": "tasks.providers.openai_chat:OpenAIChatProvider",
    "google": "tasks.providers.google:GoogleProvider",
}

UNKNOWN_WAIT_S = 2.0
"""Half-open with all its probes out, or forced open: nobody knows for how long."""

REBUILD_S = 10.0
"""A provider that could not be built on this host is tried again after this, and logged again."""

_log = structlog.get_logger("breakwater")


class Client:
    """
    One provider, built on first use, once per process.

    Registries of one worker share it for as long as the roles file says the same of it. It is
    closed when the last of them is gone, and that is when the last task that began with it is done:
    Python counts them.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings
        # By process, so that a child neither uses its parent's nor waits for a lock it held.
        self._built: dict[int, Provider] = {}
        self._locks: dict[int, threading.Lock] = {}
        self._fault: tuple[float, HostFault] | None = None
        weakref.finalize(self, _close, self._built).atexit = False

    def get(self) -> Provider:
        """
        Return the provider.

        Raises:
            HostFault: It cannot be built on this host; it is tried again after `REBUILD_S`.
        """
        pid = os.getpid()
        if pid not in self._built:
            with self._locks.setdefault(pid, threading.Lock()):
                if pid not in self._built:
                    self._built[pid] = self._build()
        return self._built[pid]

    def is_built(self) -> bool:
        """Tell whether this process has built it."""
        return os.getpid() in self._built

    def _build(self) -> Provider:
        if self._fault and time.monotonic() < self._fault[0]:
            raise HostFault(str(self._fault[1]))
        try:
            return _adapter(self.settings.adapter)(self.settings)
        except Exception as error:  # noqa: BLE001 - an SDK, or somebody's own, may raise anything
            fault = error if isinstance(error, HostFault) else not_built(error)
        named = HostFault(f"{self.settings.name}: {fault}")
        self._fault = time.monotonic() + REBUILD_S, named
        _log.error("provider.not_built", provider=self.settings.name, fault=str(named))
        raise named

    def close(self) -> None:
        """Close it, if this process has built it; running calls end as Cancelled."""
        _close(self._built)

    def serves(self, settings: ProviderSettings) -> bool:
        """Tell whether it would be built alike; the breaker's rules are none of its."""
        return replace(self.settings, breaker=settings.breaker) == settings


def _close(built: dict[int, Provider]) -> None:
    if provider := built.pop(os.getpid(), None):
        provider.close()


class Registry:
    """
    The providers of one roles file.

    Args:
        providers: Used instead of building one's own, by name: a fake, or a client the caller has
            already. They are the caller's to close.
        before: The registry that this one takes the place of.
    """

    def __init__(
        self,
        settings: Settings,
        breakers: Breakers,
        providers: Mapping[str, Provider] | None = None,
        before: "Registry | None" = None,
    ) -> None:
        self.settings = settings
        self.prices = PriceList(settings)
        self._injected = dict(providers or {})
        known: Mapping[str, Client] = before._clients if before else {}
        self._clients: dict[str, Client] = {
            name: known[name] if name in known and known[name].serves(own) else Client(own)
            for name, own in settings.providers.items()
        }
        self._gates = Gates(settings, breakers)

    def provider(self, name: str) -> Provider:
        """Return the provider of this name; built on first use, once per process."""
        if name in self._injected:
            return self._injected[name]
        return self._clients[name].get()

    def breaker(self, name: str) -> SharedCircuitBreaker:
        """Return the breaker of this provider, with the rules its settings give."""
        return self._gates.provider(name)

    def admit(self, target: Target) -> Pass:
        """
        Ask for one call of a target to go out.

        Raises:
            BreakerOpen: The provider, or the pair of provider and model, lets no call through now.
        """
        return self._gates.admit(target)

    def names(self, target: Target) -> tuple[str, str]:
        """Name the breakers of a target: the provider's, and the pair's, which may not exist."""
        return target.provider, pair_name(target)

    def is_closed(self, target: Target) -> bool:
        """Tell whether every breaker of a target lets all calls through; one round trip each."""
        return all(
            state.forced == "closed"
            or (state.state == "closed" and not state.forced and not state.held_for_s)
            for state in (breaker.peek() for breaker in self._gates.of(target))
        )

    def detected_providers(self) -> tuple[str, ...]:
        """Name every configured provider, in the order of the file or of detection."""
        return tuple(self.settings.providers)

    def available_providers(self) -> dict[str, BreakerState]:
        """Name the providers that would be asked now, with the state of their breakers."""
        states = {name: self.breaker(name).peek() for name in self.settings.providers}
        return {name: s for name, s in states.items() if _admits(s, self._rules(name))}

    def provider_for(self, role: str | Role) -> tuple[Target, Provider] | None:
        """
        Choose whom a role would ask now.

        A look, not an admission: no probe's place is taken, and the next look may differ.

        Returns:
            The first target of the chain whose breakers let calls through, and that can be built
            on this host; None if there is none.

        Raises:
            UnknownRole: There is no such role.
        """
        role = self.settings.role(role) if isinstance(role, str) else role
        for target in role.chain:
            if all(_admits(state, self._rules(target.provider)) for state in self._states(target)):
                with suppress(HostFault):
                    return target, self.provider(target.provider)
        return None

    def closed_for(self, role: Role) -> tuple[float, str]:
        """Return for how many seconds no target of a role may be asked, and why; 0 if one may."""
        waits_s, why = [], set()
        for target in role.chain:
            rules = self._rules(target.provider)
            closed = [state for state in self._states(target) if not _admits(state, rules)]
            if not closed:
                return 0.0, ""
            waits_s.append(max(_wait_s(state) for state in closed))
            why |= {_described(state) for state in closed}
        return min(waits_s), ", ".join(sorted(why))

    def few(self, role: Role) -> int:
        """Return how many calls of a role are enough to find out whether a target is back."""
        return min(self._rules(target.provider).success_threshold for target in role.chain)

    def report_success(self, name: str) -> None:
        """Tell a provider's breaker of a call that was made without asking it first."""
        self._report(name, None)

    def report_failure(self, name: str, error: Exception) -> None:
        """
        Tell a provider's breaker how such a call failed.

        Only what a ProviderError's verdict calls the provider's fault counts against it; an error
        of any other class is nobody's.
        """
        self._report(name, error)

    def check_all(self, timeout_s: float = 10.0) -> dict[str, str | BreakwaterError]:
        """
        Prove every provider's key and address at once, for `breakwater doctor`.

        Returns:
            By provider, one line on what was found, or the error.
        """
        late = ProviderTimeout(f"no answer within {timeout_s:g} s")
        found: dict[str, str | BreakwaterError] = dict.fromkeys(self.settings.providers, late)

        def check(name: str) -> None:
            try:
                found[name] = self.provider(name).check()
            except BreakwaterError as error:
                found[name] = error
            except Exception as error:  # noqa: BLE001 - somebody's own adapter may raise anything
                found[name] = ProviderError(f"its adapter failed ({type(error).__name__})")

        # Daemons, so that a check that hangs does not keep the command from ending.
        checks = [
            threading.Thread(target=check, args=(name,), name=f"check-{name}", daemon=True)
            for name in self.settings.providers
        ]
        ends_at = time.monotonic() + timeout_s
        for thread in checks:
            thread.start()
        for thread in checks:
            thread.join(max(0.0, ends_at - time.monotonic()))
        return dict(found)

    def unlisted(self, name: str) -> dict[str, tuple[list[str], str]]:
        """
        Find the models of the chains that a provider does not list, after `check_all`.

        Returns:
            By model, the roles that name it, and a hint at the nearest one that is listed. Nothing
            for a provider without a list.
        """
        if name not in self._injected and not self._clients[name].is_built():
            return {}
        known = getattr(self.provider(name), "known_models", None) or frozenset()
        return {
            model: (roles, nearest(model, known))
            for model, roles in unlisted(self.settings, name, known).items()
        }

    def build(self) -> None:
        """
        Build every provider now, which takes up to half a second each.

        Built by the first call that is let through, they would have a whole pool of calls let
        through before the first of them can fail.
        """
        for name in self.settings.providers:
            with suppress(HostFault):  # logged; its tasks go on to their next targets
                self.provider(name)

    def close(self) -> None:
        """Close the providers this process has built; their running calls end as Cancelled."""
        for client in self._clients.values():
            client.close()

    def _rules(self, name: str) -> BreakerSettings:
        return self.settings.providers[name].breaker

    def _states(self, target: Target) -> list[BreakerState]:
        return [breaker.peek() for breaker in self._gates.of(target)]

    def _report(self, name: str, error: Exception | None) -> None:
        if isinstance(error, ProviderError) and error.verdict.holds_model:
            self._gates.hold(Target(name, self.settings.providers[name].model), error)
            return
        breaker = self.breaker(name)
        try:
            permit = breaker.admit()
        except BreakerOpen:
            return  # what happens while it is open changes nothing
        settle(breaker, permit, error)


def _wait_s(state: BreakerState) -> float:
    return max(state.open_for_s, state.held_for_s) or UNKNOWN_WAIT_S


def _described(state: BreakerState) -> str:
    if state.forced:
        return f"{state.name} is forced {state.forced}"
    reason = f" ({state.reason})" if state.reason else ""
    return f"{state.name} is {state.state}{reason}"


def preload(settings: Settings) -> None:
    """
    Import the SDKs of the configured adapters, in the parent of a prefork.

    One that cannot be imported is logged, and is a fault of this host when it is asked.
    """
    for provider in settings.providers.values():
        try:
            _adapter(provider.adapter)
        except Exception as error:  # noqa: BLE001 - somebody's own module may raise anything
            fault = str(not_built(error))
            _log.error("provider.not_imported", provider=provider.name, fault=fault)


def _adapter(name: str) -> Callable[[ProviderSettings], Provider]:
    module, _, attribute = ADAPTERS.get(name, name).partition(":")
    adapter: Callable[[ProviderSettings], Provider] = getattr(import_module(module), attribute)
    return adapter


def _admits(state: BreakerState, rules: BreakerSettings) -> bool:
    if state.forced:
        return state.forced == "closed"
    if state.held_for_s > 0:
        return False
    if state.state == "half-open":
        missing = rules.success_threshold - state.successes
        return state.probes < min(rules.max_probes or missing, missing)
    return state.state == "closed" or state.open_for_s <= 0

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

from breakwater.errors import BreakwaterError, HostFault, ProviderError, ProviderTimeout, nearest
from tasks.config import ProviderSettings, Settings
from tasks.providers.base import Provider
from tasks.providers.http.host_faults import not_built
from tasks.providers.models import unlisted

ADAPTERS = {
    "anthropic": "tasks.providers.anthropic:AnthropicProvider",
    "openai": "tasks.providers.openai:OpenAIProvider",
    "openai-chat": "tasks.providers.openai_chat:OpenAIChatProvider",
    "google": "tasks.providers.google:GoogleProvider",
}

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
        providers: Mapping[str, Provider] | None = None,
        before: "Registry | None" = None,
    ) -> None:
        self.settings = settings
        self._injected = dict(providers or {})
        known: Mapping[str, Client] = before._clients if before else {}
        self._clients: dict[str, Client] = {
            name: known[name] if name in known and known[name].serves(own) else Client(own)
            for name, own in settings.providers.items()
        }

    def provider(self, name: str) -> Provider:
        """Return the provider of this name; built on first use, once per process."""
        if name in self._injected:
            return self._injected[name]
        return self._clients[name].get()

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

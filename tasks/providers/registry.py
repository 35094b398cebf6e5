"""
The configured providers, each built when it is first needed.

An adapter's module imports its vendor's SDK (0.3 to 0.7 s, 40 to 66 MB), so only the configured
ones are imported. A provider is built in the process that uses it: a client that was used before a
fork gave one process another process's answer.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from breakwater.errors import BreakwaterError, HostFault, ProviderError, ProviderTimeout, nearest
from tasks import catalogue
from tasks.config import ProviderSettings, Settings
from tasks.providers.base import Provider, known_models
from tasks.providers.http.host_faults import build_fault
from tasks.providers.models import unlisted

ADAPTERS = {name: spec.path for name, spec in catalogue.ADAPTERS.items()}

REBUILD_S = 10.0
"""A provider that could not be built on this host is tried again after this, and logged again."""

_log = structlog.get_logger("breakwater")


class Client:
    """
    One provider, built on first use, once per process.

    The registries of one worker share a client as long as its entry in the roles file is the same.
    It is closed when the last of these registries is gone, which is when the last task that began
    with one of them is done: Python counts the references.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings
        # By process: a child must neither use its parent's client nor wait for a lock it held.
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
        """Return whether this process has built it."""
        return os.getpid() in self._built

    def _build(self) -> Provider:
        if self._fault and time.monotonic() < self._fault[0]:
            raise HostFault(str(self._fault[1]))
        try:
            return _adapter(self.settings.adapter)(self.settings)
        except HostFault as error:
            fault = error
        except Exception as error:  # noqa: BLE001 - an SDK or a user's adapter may raise anything
            fault = build_fault(error)
        fault_of_provider = HostFault(f"{self.settings.name}: {fault}")
        self._fault = time.monotonic() + REBUILD_S, fault_of_provider
        _log.error("provider.not_built", provider=self.settings.name, fault=str(fault_of_provider))
        raise fault_of_provider

    def close(self) -> None:
        """Close it, if this process has built it; running calls end as Cancelled."""
        _close(self._built)

    def serves(self, settings: ProviderSettings) -> bool:
        """Return whether these settings build the same client, whatever the breaker's rules."""
        return replace(self.settings, breaker=settings.breaker) == settings


def _close(built: dict[int, Provider]) -> None:
    if provider := built.pop(os.getpid(), None):
        provider.close()


class Registry:
    """
    The providers of one roles file.

    Args:
        settings: With the entries of the providers.
        providers: By name, used in place of built ones: fakes, or clients of the caller, which the
            caller closes.
        before: The registry that this one replaces; clients with the same settings are kept.
    """

    def __init__(
        self,
        settings: Settings,
        providers: Mapping[str, Provider] | None = None,
        before: "Registry | None" = None,
    ) -> None:
        self.settings = settings
        self._injected = dict(providers or {})
        self._clients = {name: Client(entry) for name, entry in settings.providers.items()}
        if before:
            self._clients |= {
                name: client
                for name, client in before._clients.items()
                if name in self._clients and client.serves(settings.providers[name])
            }

    def provider(self, name: str) -> Provider:
        """
        Return the provider of this name; it is built on first use, once per process.

        Raises:
            HostFault: It cannot be built on this host.
        """
        if name in self._injected:
            return self._injected[name]
        return self._clients[name].get()

    def check_all(self, timeout_s: float = 10.0) -> dict[str, str | BreakwaterError]:
        """
        Prove every provider's key and address at once, for `breakwater doctor`.

        Returns:
            By provider, the line that its check returned, or the error.
        """
        late = ProviderTimeout(f"no answer within {timeout_s:g} s")
        results: dict[str, str | BreakwaterError] = dict.fromkeys(self.settings.providers, late)

        def check(name: str) -> None:
            try:
                results[name] = self.provider(name).check()
            except BreakwaterError as error:
                results[name] = error
            except Exception as error:  # noqa: BLE001 - a user's adapter may raise anything
                results[name] = ProviderError(f"its adapter failed ({type(error).__name__})")

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
        return dict(results)

    def unlisted(self, name: str) -> dict[str, tuple[list[str], str]]:
        """
        Find the models of the chains that a provider does not list, after `check_all`.

        Returns:
            By model, the roles that name it, and a hint at the nearest listed model. Empty for a
            provider without a list.
        """
        if name not in self._injected and not self._clients[name].is_built():
            return {}
        listed = known_models(self.provider(name))
        return {
            model: (roles, nearest(model, listed))
            for model, roles in unlisted(self.settings, name, listed).items()
        }

    def build(self) -> None:
        """
        Build every provider now, which takes up to half a second each.

        If the first admitted call built its provider, a whole pool of calls would be admitted
        before the first of them could fail.
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

    An SDK that cannot be imported is logged; a call of its provider raises `HostFault`.
    """
    for provider in settings.providers.values():
        try:
            _adapter(provider.adapter)
        except Exception as error:  # noqa: BLE001 - a user's module may raise anything
            fault = str(build_fault(error))
            _log.error("provider.not_imported", provider=provider.name, fault=fault)


def _adapter(name: str) -> Callable[[ProviderSettings], Provider]:
    adapter: Callable[[ProviderSettings], Provider] = catalogue.load_class(name)
    return adapter

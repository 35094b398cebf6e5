"""Who can be asked: building, checking and closing providers."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from breakwater import errors
from breakwater.attempt import Usage
from simulator.client import Simulator
from tasks.config import BreakerSettings, ProviderSettings, Role, Settings, Target
from tasks.providers.base import Completion, Request
from tasks.providers.registry import Registry
from tests.support.vendors import request, settings_for

ROOT = Path(__file__).parents[2]


class Fake:
    """A provider that answers with its name; also an adapter of one's own."""

    built = 0

    def __init__(self, settings: ProviderSettings) -> None:
        type(self).built += 1
        self.name = settings.name
        self.pid = os.getpid()
        self.closed = False

    def complete(self, asked: Request) -> Completion:
        """Answer at once."""
        return Completion(self.name, asked.model, "stop", Usage())

    def check(self) -> str:
        """Answer by name: well, wrongly, never."""
        if self.name == "locked":
            raise errors.AuthenticationFailed("it does not accept the key")
        if self.name == "broken":
            raise ZeroDivisionError("secret")
        if self.name == "slow":
            threading.Event().wait()
        return f"{self.name} is well"

    def close(self) -> None:
        """Note it."""
        self.closed = True


def settings(*names: str, **roles: list[str]) -> Settings:
    """Return settings over fakes, one model each, and roles with their chains."""
    own = f"{__name__}:Fake"
    rules = BreakerSettings(fail_max=2, reset_timeout_s=60)
    return Settings(
        providers={n: ProviderSettings(n, own, f"{n}-1", breaker=rules) for n in names},
        roles={r: Role(r, tuple(Target(n, f"{n}-1") for n in c)) for r, c in roles.items()},
    )


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Fake` under the name its settings give."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Fake.__module__])
    monkeypatch.setattr(Fake, "built", 0)


def test_a_provider_is_built_once_by_all_threads() -> None:
    """An SDK's client costs 20 to 35 ms of CPU, and its connections are worth sharing."""
    registry = Registry(settings("a", "b"))
    gate = threading.Barrier(20)

    with ThreadPoolExecutor(20) as threads:
        got = list(threads.map(lambda _: (gate.wait(), registry.provider("a"))[1], range(20)))

    assert len(set(map(id, got))) == 1
    assert Fake.built == 1, "and b, which nobody asked for, not at all"


def test_a_forked_child_builds_its_own() -> None:
    """A client used before a fork gave one process another process's answer."""
    registry = Registry(settings("a"))
    registry.provider("a")

    child = os.fork()
    if child == 0:
        provider: Any = registry.provider("a")
        os._exit(0 if provider.pid == os.getpid() else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_caller_brings_a_provider_of_its_own() -> None:
    """By name; it is used as it is, and not closed."""
    config = settings("a", "b", role=["a", "b"])
    mine = Fake(config.providers["a"])
    registry = Registry(config, providers={"a": mine})

    provider = registry.provider("a")
    registry.close()

    assert provider is mine
    assert not mine.closed


def test_each_of_the_four_adapters_answers(adapter: str, simulator: Simulator, label: str) -> None:
    """By the names that roles.yaml has for them."""
    config = Settings(providers={"p": settings_for(adapter, simulator.url(label))}, roles={})
    registry = Registry(config)

    assert registry.provider("p").complete(request()).text.startswith(f"[{label}]")
    registry.close()


def test_every_provider_is_checked_at_once_and_no_fault_hides_another() -> None:
    """A check that hangs costs the time given, once; a broken adapter is named."""
    registry = Registry(settings("well", "slow", "locked", "broken"))

    found = registry.check_all(timeout_s=3)

    assert list(found) == ["well", "slow", "locked", "broken"]
    assert found["well"] == "well is well"
    assert isinstance(found["slow"], errors.ProviderTimeout)
    assert isinstance(found["locked"], errors.AuthenticationFailed)
    assert str(found["broken"]) == "its adapter failed (ZeroDivisionError)"


def test_closing_closes_what_was_built() -> None:
    """And a provider asked for later is a new one."""
    registry = Registry(settings("a"))
    first: Any = registry.provider("a")

    registry.close()

    assert first.closed
    assert registry.provider("a") is not first


def test_no_sdk_is_imported_by_those_who_only_enqueue() -> None:
    """Together they cost a second and 92 MB; `tasks`, the registry included, costs neither."""
    code = (
        "import sys, tasks, tasks.providers.registry; "
        "print(sorted({'anthropic', 'openai', 'google.genai', 'httpx2'} & set(sys.modules)))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_preload_imports_the_configured_sdks_and_builds_nothing() -> None:
    """In the parent of a prefork: children share the modules, never a client."""
    code = (
        "import sys; from tests.support.vendors import settings_for; "
        "from tasks.config import Settings; from tasks.providers.registry import preload; "
        "preload(Settings({'p': settings_for('openai', 'http://127.0.0.1')}, {})); "
        "print([name for name in ('anthropic', 'openai', 'google.genai') if name in sys.modules])"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (ran.stdout, ran.stderr) == ("['openai']\n", "")

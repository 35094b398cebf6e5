"""Who can be asked: building, choosing, reporting, checking and closing providers."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from breaker import Breakers
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


def test_a_provider_is_built_once_by_all_threads(breakers: Breakers) -> None:
    """An SDK's client costs 20 to 35 ms of CPU, and its connections are worth sharing."""
    registry = Registry(settings("a", "b"), breakers)
    gate = threading.Barrier(20)

    with ThreadPoolExecutor(20) as threads:
        got = list(threads.map(lambda _: (gate.wait(), registry.provider("a"))[1], range(20)))

    assert len(set(map(id, got))) == 1
    assert Fake.built == 1, "and b, which nobody asked for, not at all"


def test_a_forked_child_builds_its_own(breakers: Breakers) -> None:
    """A client used before a fork gave one process another process's answer."""
    registry = Registry(settings("a"), breakers)
    registry.provider("a")

    child = os.fork()
    if child == 0:
        provider: Any = registry.provider("a")
        os._exit(0 if provider.pid == os.getpid() else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_caller_brings_a_provider_of_its_own(breakers: Breakers) -> None:
    """By name; it is used as it is, and not closed."""
    config = settings("a", "b", role=["a", "b"])
    mine = Fake(config.providers["a"])
    registry = Registry(config, breakers, providers={"a": mine})

    chosen = registry.provider_for("role")
    registry.close()

    assert chosen == (Target("a", "a-1"), mine)
    assert not mine.closed


def test_each_of_the_four_adapters_answers(
    adapter: str, simulator: Simulator, label: str, breakers: Breakers
) -> None:
    """By the names that roles.yaml has for them."""
    config = Settings(providers={"p": settings_for(adapter, simulator.url(label))}, roles={})
    registry = Registry(config, breakers)

    assert registry.provider("p").complete(request()).text.startswith(f"[{label}]")
    registry.close()


def test_the_provider_of_a_role_is_the_first_that_would_be_let_through(breakers: Breakers) -> None:
    """In the chain's order; a look takes no probe's place."""
    registry = Registry(settings("a", "b", role=["a", "b"]), breakers)

    def chosen() -> str | None:
        found = registry.provider_for("role")
        return found and found[0].provider

    assert chosen() == "a"
    registry.breaker("a").open()
    assert chosen() == "b"
    assert list(registry.available_providers()) == ["b"]
    registry.breaker("b").force("open")
    assert chosen() is None
    assert registry.available_providers() == {}
    registry.breaker("a").half_open()
    assert chosen() == chosen() == "a", "however often one looks"
    taken = [registry.breaker("a").admit() for _ in range(2)]
    assert chosen() is None, "both probes are out"
    for permit in taken:
        registry.breaker("a").record(permit, "neutral")
    assert chosen() == "a"
    registry.breaker("a").force("closed")
    assert registry.available_providers()["a"].forced == "closed"


def test_an_unknown_role_has_no_provider(breakers: Breakers) -> None:
    """The same error as everywhere."""
    registry = Registry(settings("a", role=["a"]), breakers)

    with pytest.raises(errors.UnknownRole, match="did you mean 'role'"):
        registry.provider_for("rolle")


def test_a_held_back_provider_is_not_available(breakers: Breakers) -> None:
    """It asked to be left alone, and is healthy."""
    registry = Registry(settings("a"), breakers)

    registry.report_failure("a", errors.RateLimited("slow down", retry_after_s=30))

    assert registry.available_providers() == {}
    assert registry.breaker("a").peek().state == "closed"


def test_the_reason_names_what_an_operator_forced(breakers: Breakers) -> None:
    """Not the state underneath, which is none of the role's reasons to wait."""
    registry = Registry(settings("a", coder=["a"]), breakers)
    registry.breaker("a").force("open")

    _, why = registry.closed_for(registry.settings.role("coder"))

    assert why == "a is forced open"


def test_reported_failures_open_the_breaker_and_successes_end_a_run(breakers: Breakers) -> None:
    """For callers that drive a provider themselves: the verdict decides what counts."""
    registry = Registry(settings("a"), breakers)

    def failures_after(*outcomes: Exception | None) -> int:
        for outcome in outcomes:
            if outcome is None:
                registry.report_success("a")
            else:
                registry.report_failure("a", outcome)
        return registry.breaker("a").peek().failures

    assert failures_after(errors.ServerError("no")) == 1
    assert failures_after(errors.InvalidRequest("no"), ValueError("no")) == 1
    assert failures_after(None) == 0
    assert failures_after(errors.ServerError("no"), errors.Overloaded("no")) == 2
    assert registry.breaker("a").peek().state == "open"
    assert failures_after(errors.ServerError("no"), None) == 2, "while open nothing changes"


def test_one_report_of_a_bad_key_is_enough(breakers: Breakers) -> None:
    """One is proof."""
    registry = Registry(settings("a"), breakers)

    registry.report_failure("a", errors.AuthenticationFailed("no"))

    assert registry.breaker("a").peek().state == "open"


def test_every_provider_is_checked_at_once_and_no_fault_hides_another(breakers: Breakers) -> None:
    """A check that hangs costs the time given, once; a broken adapter is named."""
    registry = Registry(settings("well", "slow", "locked", "broken"), breakers)

    found = registry.check_all(timeout_s=3)

    assert list(found) == ["well", "slow", "locked", "broken"]
    assert found["well"] == "well is well"
    assert isinstance(found["slow"], errors.ProviderTimeout)
    assert isinstance(found["locked"], errors.AuthenticationFailed)
    assert str(found["broken"]) == "its adapter failed (ZeroDivisionError)"


def test_a_breaker_goes_by_the_rules_of_the_roles_file(breakers: Breakers) -> None:
    """`breaker:` of the provider's entry."""
    registry = Registry(settings("a"), breakers)

    assert registry.breaker("a") is registry.breaker("a")
    assert registry.breaker("a").fail_max == 2
    assert registry.detected_providers() == ("a",)


def test_closing_closes_what_was_built(breakers: Breakers) -> None:
    """And a provider asked for later is a new one."""
    registry = Registry(settings("a"), breakers)
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

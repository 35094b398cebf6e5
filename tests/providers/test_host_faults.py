"""What this host lacks is no provider's fault: the next target is asked, and the setting named."""

import errno
import os
import socket
import ssl
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from breaker import Breakers
from breakwater import errors
from breakwater.calls.call import CompletionCall
from breakwater.errors import HostFault
from tasks.answering.walk import NothingAvailable
from tasks.config import ProviderSettings, Role, Settings, Target
from tasks.providers import registry as registry_module
from tasks.providers.http import transport
from tasks.providers.http.host import host_fault
from tasks.providers.registry import preload
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.ports import free_port
from tests.support.scripted import ScriptedProvider
from tests.support.vendors import answer_of, request, settings_for
from tests.support.walking import Walking

Prepare = Callable[[pytest.MonkeyPatch, Path], str]


def environ(**variables: str) -> Prepare:
    """Return a step that sets variables, and names the one at fault."""

    def prepare(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(folder=folder))
        return next(iter(variables))

    return prepare


def certificates(content: bytes | None) -> Prepare:
    """Return a step that points SSL_CERT_FILE at a file with this content; None: at no file."""

    def prepare(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
        if content is not None:
            (folder / "ca.pem").write_bytes(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        return "SSL_CERT_FILE"

    return prepare


FAULTS: dict[str, Prepare] = {
    "SOCKS without socksio": environ(ALL_PROXY="socks5://127.0.0.1:9"),
    "SOCKS for https alone": environ(HTTPS_PROXY="socks5h://127.0.0.1:9"),
    "lower case": environ(all_proxy="socks5://127.0.0.1:9"),
    "a scheme that is none": environ(HTTPS_PROXY="ftp://user:hunter2@127.0.0.1:9"),
    "SOCKS 4": environ(ALL_PROXY="socks4://user:hunter2@127.0.0.1:9"),
    "no host": environ(HTTPS_PROXY="http://"),
    "no port": environ(HTTPS_PROXY="http://user:hunter2@host:port"),
    "a broken address": environ(HTTPS_PROXY="http://user:hunter2@[::1"),
    "a proxy that nobody runs": environ(HTTPS_PROXY="http://user:hunter2@127.0.0.1:9"),
    "a proxy without an address": environ(HTTPS_PROXY="http://proxy.invalid:3128"),
    "no certificate file": certificates(None),
    "an empty certificate file": certificates(b""),
    "a file of something else": certificates(b"\x00\x01 no certificate"),
    "half a certificate": certificates(b"-----BEGIN CERTIFICATE-----\nMIIB\n"),
    "a folder as the file": environ(SSL_CERT_FILE="{folder}"),
    "no certificate folder": environ(SSL_CERT_DIR="{folder}/nowhere"),
    "a file as the folder": environ(SSL_CERT_DIR=str(Path(__file__))),
}


@pytest.fixture(autouse=True)
def _fresh_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that was built with good certificates is kept by the process."""
    transport._ssl_context.cache_clear()
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def chain(breakers: Breakers, first: ProviderSettings, **known: Any) -> tuple[Walking, Role]:
    """Return a role over this provider and, behind it, one that answers."""
    second = ProviderSettings("second", "openai-chat", "m")
    role = Role("coder", (Target(first.name, first.model), Target("second", "m")))
    settings = Settings({first.name: first, "second": second}, {"coder": role})
    return Walking(settings, breakers, {"second": ScriptedProvider("hi"), **known}), role


def walk(walking: Walking, role: Role) -> Any:
    return walking.walk(CompletionCall.of("coder", "hi", {}), role)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_this_host_is_passed_over_and_named(
    fault: str, adapter: str, breakers: Breakers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next target answers, no breaker counts it, and the attempt says which variable it is."""
    variable = FAULTS[fault](monkeypatch, tmp_path)
    walking, role = chain(breakers, settings_for(adapter, "https://127.0.0.1:9", name="first"))

    routed = walk(walking, role)

    assert routed.target.provider == "second"
    rejected = routed.attempts[0]
    assert (rejected.outcome, rejected.error) == ("rejected", "HostFault")
    assert variable in rejected.why
    assert "hunter2" not in rejected.why
    assert breakers.get("first").peek().failures == 0
    walking.registry.close()


def broken_module(monkeypatch: pytest.MonkeyPatch) -> str:
    """An adapter of one's own whose constructor fails."""
    module = types.ModuleType("mine")

    def build(_: ProviderSettings) -> None:
        raise ZeroDivisionError("my key is sk-secret")

    module.__dict__["Broken"] = build
    monkeypatch.setitem(sys.modules, "mine", module)
    return "mine:Broken"


@pytest.mark.parametrize(
    ("adapter", "named"),
    [
        ("nowhere.at_all:Adapter", "nowhere"), ("json:Adapter", "AttributeError"),
        ("mine:Broken", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_an_adapter_that_cannot_be_built_is_passed_over(
    adapter: str, named: str, breakers: Breakers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is not installed here, a wrong name, a constructor that raises anything."""
    broken_module(monkeypatch)
    walking, role = chain(breakers, ProviderSettings("first", adapter, "m"))

    with capture_logs() as logs:
        preload(walking.settings)
        walking.registry.build()
        routed = [walk(walking, role) for _ in range(6)][-1]

    assert routed.target.provider == "second"
    assert named in routed.attempts[0].why
    assert breakers.get("first").peek().failures == 0
    written = [line for line in logs if line["event"] == "provider.not_built"]
    assert len(written) == 1, "not for each task"
    assert named in written[0]["fault"]
    assert "sk-secret" not in str(logs)


def test_a_provider_is_built_again_after_a_while(
    breakers: Breakers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have mended the host meanwhile; the worker need not be started again."""
    monkeypatch.setattr(registry_module, "REBUILD_S", 0.0)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    walking, role = chain(breakers, settings_for("openai-chat", "http://a.invalid", name="first"))
    with pytest.raises(HostFault, match="first: ALL_PROXY names a SOCKS proxy"):
        walking.registry.provider("first")

    monkeypatch.delenv("ALL_PROXY")

    assert walking.registry.provider("first")
    assert walking.walker().available_target(role)
    walking.registry.close()


def test_a_task_that_no_target_here_can_serve_goes_back(
    breakers: Breakers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a host that can; no breaker is tripped meanwhile."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    first = settings_for("anthropic", "https://a.invalid", name="first")
    role = Role("coder", (Target("first", "m"),))
    walking = Walking(Settings({"first": first}, {"coder": role}), breakers)

    with pytest.raises(NothingAvailable) as nothing:
        walk(walking, role)

    assert [a.error for a in nothing.value.attempts] == ["HostFault"]
    assert walking.closed_for(role) == (0.0, "")
    assert walking.walker().available_target(role) is None


@pytest.mark.parametrize(
    "code",
    [
        errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL,
        errno.ENETUNREACH, errno.EACCES, errno.EPERM,
    ],
)  # fmt: skip
def test_a_socket_that_this_host_cannot_open_is_its_own_fault(
    code: int, adapter: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files on one worker must not take the provider from the fleet."""

    def refuse(*_: Any, **__: Any) -> socket.socket:
        raise OSError(code, os.strerror(code))

    provider = build(adapter, "http://127.0.0.1:9")
    monkeypatch.setattr(socket, "create_connection", refuse)

    with pytest.raises(HostFault, match="this host cannot make the call"):
        provider.complete(request())


def test_a_refused_connection_is_the_providers(adapter: str, build: Build) -> None:
    """Without a proxy it is the provider that refuses."""
    with pytest.raises(errors.ConnectionFailed):
        build(adapter, f"http://127.0.0.1:{free_port()}").complete(request())


@pytest.mark.parametrize("status", [403, 407])
def test_a_proxy_that_lets_nothing_through_is_this_hosts(
    status: int, adapter: str, server: Loopback, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses the tunnel: a login is missing, or its rules forbid the address."""
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    server.answer(b"", status)

    with pytest.raises(HostFault, match=f"the proxy refuses this host .{status}."):
        build(adapter, "https://api.invalid").complete(request())


def test_a_good_proxy_is_used(
    server: Loopback, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the setting refuses nothing that works."""
    server.answer(answer_of("anthropic"))
    monkeypatch.setenv("HTTP_PROXY", server.url.removeprefix("http://"))

    assert build("anthropic", "http://api.invalid").complete(request()).text == "hi"


@pytest.mark.parametrize(
    ("code", "is_ours"), [(9, True), (19, True), (20, True), (21, True), (10, False), (18, False),
                          (62, False)]
)  # fmt: skip
def test_a_certificate_that_this_host_does_not_trust(code: int, is_ours: bool) -> None:
    """No issuer known here, or a clock that lags; expired or of another host is the server's."""
    error = ssl.SSLCertVerificationError("x")
    error.verify_code = code

    fault = host_fault(error)

    assert (fault is not None) is is_ours
    assert not fault or "SSL_CERT_FILE" in str(fault)

"""Canaries: a key and a prompt planted in every call appear in nothing that is written."""

import io
import logging
import traceback
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from breakwater.errors import ProviderError
from simulator.client import Simulator
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import request, settings_for

KEY = "sk-CANARY-key-0123456789"
PROMPT = "CANARY-prompt: the launch code is 0000"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that any logger writes, at the level of `celery -l debug`."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def test_settings_and_requests_do_not_show_them(adapter: str) -> None:
    """Whoever logs one of our objects logs neither."""
    settings = settings_for(adapter, "http://127.0.0.1", api_key=SecretStr(KEY))
    asked = request(PROMPT, system=PROMPT)

    assert "CANARY" not in f"{settings!r} {settings} {asked!r} {asked}"


def test_a_good_call_writes_neither_to_a_log(
    adapter: str, simulator: Simulator, label: str, build: Build, log: io.StringIO,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """At DEBUG the SDKs would write the whole request."""
    simulator.settings(label, answer="echo")
    provider = build(adapter, simulator.url(label), api_key=SecretStr(KEY))

    completion = provider.complete(request(PROMPT, system=PROMPT))

    assert completion.text == PROMPT
    assert "CANARY" not in repr(completion)
    assert "CANARY" not in repr(provider)
    assert "CANARY" not in log.getvalue() + "".join(capfd.readouterr())


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 413, 429, 500, 503, 529])
@pytest.mark.parametrize("quotes", ["its fields", "its message", "the whole body"])
def test_an_error_that_quotes_them_is_not_quoted(
    status: int, quotes: str, adapter: str, server: Loopback, build: Build, log: io.StringIO
) -> None:
    """Vendors repeat a wrong key or the offending text, in any field; none of it goes on."""
    fields: dict[str, object] = dict.fromkeys(("code", "type", "param", "status"), KEY)
    fields |= {"message": PROMPT, "details": [{"reason": KEY}]}
    if quotes == "its message":
        fields = {"message": f"no {KEY} {PROMPT}"}
    body = f"{KEY} {PROMPT}".encode() if quotes == "the whole body" else {"error": fields}
    server.answer(body, status)
    provider = build(adapter, server.url, api_key=SecretStr(KEY))

    with pytest.raises(ProviderError) as caught:
        provider.complete(request(PROMPT, system=PROMPT))

    error = caught.value
    shown = "".join(traceback.format_exception(error))
    assert "CANARY" not in f"{error} {error!r} {error.args} {error.details} {shown}"
    assert "CANARY" not in log.getvalue()


@pytest.mark.parametrize("fault", ["reset", "truncate", "cut", "garbage", "hang"])
def test_a_broken_call_shows_neither(
    fault: str, adapter: str, simulator: Simulator, label: str, build: Build, log: io.StringIO
) -> None:
    """Nor does the traceback that a worker logs."""
    simulator.fault(label, fault)
    simulator.settings(label, answer="echo")
    provider = build(adapter, simulator.url(label), api_key=SecretStr(KEY))

    with pytest.raises(ProviderError) as caught:
        provider.complete(request(PROMPT, timeout_s=2 if fault == "hang" else 180))

    shown = "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in f"{caught.value!r} {shown} {log.getvalue()}"

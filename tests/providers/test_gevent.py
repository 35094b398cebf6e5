"""The transport under gevent, in a process of its own that is patched from its first line."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from simulator.client import Simulator
from tests.support.servers import Tls
from tests.support.spawner import run

SCRIPT = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from breakwater.errors import Cancelled, ProviderTimeout
from tasks.providers.http import transport
from tests.support.vendors import provider_for, request

url = sys.argv[1]
providers = {name: provider_for(name, f"{url}/g-{name}")
             for name in ("anthropic", "openai", "openai-chat", "google")}

def fails(call, kind):
    try:
        call()
    except kind:
        return True

def left():
    pools = [p._transport._pool._idle for p in providers.values()]
    idle = sum(len(lines) for pool in pools for lines in pool.values())
    return len(transport._in_flight), idle

# 40 calls that hang end with their total time.
calls = [gevent.spawn(fails, lambda p=p: p.complete(request(timeout_s=1)), ProviderTimeout)
         for p in providers.values() for _ in range(10)]
gevent.joinall(calls, timeout=180)
assert all(call.value for call in calls), [call.exception for call in calls]
assert left() == (0, 0), left()

# gevent's own timeout and kill pass through, and leave nothing behind.
def bounded(provider):
    with gevent.Timeout(0.1):
        provider.complete(request())
calls = [gevent.spawn(fails, lambda p=p: bounded(p), gevent.Timeout)
         for p in providers.values() for _ in range(25)]
gevent.joinall(calls, timeout=180)
assert all(call.value for call in calls), [call.exception for call in calls]
calls = [gevent.spawn(p.complete, request()) for p in providers.values() for _ in range(10)]
gevent.sleep(0.3)
gevent.killall(calls, timeout=180)
assert left() == (0, 0), left()

# A greenlet's call is ended from another.
from threading import get_ident
ids = []
def waiting():
    ids.append(get_ident())
    return fails(lambda: providers["openai"].complete(request()), Cancelled)
calls = [gevent.spawn(waiting) for _ in range(3)]
while len(transport._in_flight) < 3:
    gevent.sleep(0.01)
assert transport.abort(ids[1])
calls[1].join(180)
assert [call.ready() for call in calls] == [False, True, False]
assert transport.abort_all() == 2
gevent.joinall(calls, timeout=180)
assert all(call.value for call in calls)

# And healthy answers are not mixed up.
def echo(n):
    return healthy.complete(request(f"number {n}")).text
healthy = provider_for("anthropic", f"{url}/g-echo")
calls = [gevent.spawn(echo, n) for n in range(200)]
gevent.joinall(calls, timeout=180)
assert [call.value for call in calls] == [f"number {n}" for n in range(200)]
print("all held")
"""


@pytest.mark.parametrize("scheme", ["http", pytest.param("https", marks=pytest.mark.slow)])
def test_deadlines_kills_and_aborts_hold_under_gevent(scheme: str, simulator: Simulator) -> None:
    """httpx2's own pool keeps a dead entry for ever in one of fifty killed greenlets."""
    for name in ("anthropic", "openai", "openai-chat", "google"):
        simulator.fault(f"g-{name}", "hang")
    simulator.settings("g-echo", answer="echo")

    tls = Tls(urlsplit(simulator.base_url).port or 0)
    url = simulator.base_url if scheme == "http" else f"https://localhost:{tls.port}"

    ran = run(
        [sys.executable, "-c", SCRIPT, url],
        cwd=Path(__file__).parents[2], env={**os.environ, "SSL_CERT_FILE": str(tls.ca)}, fresh=True,
    )  # fmt: skip
    tls.close()

    assert (ran.returncode, ran.stdout) == (0, "all held\n"), ran.stderr

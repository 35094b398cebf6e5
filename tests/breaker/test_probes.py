"""Leases of running probes are renewed; forgotten ones are given back; forks and gevent."""

import gc
import os
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from breaker import Breakers, Permit, SharedCircuitBreaker
from breaker import probes as probes_module
from tests.support.spawner import run
from tests.support.waiting import wait_until


def lease_end(breaker: SharedCircuitBreaker, permit: Permit) -> int:
    """When the permit's lease ends, in ms of Redis' time."""
    return int(breaker._storage.redis.client.hget("breaker:{x}", f"probe:{permit.token}"))


def renewing() -> bool:
    return any(thread.name == "breaker-probes" for thread in threading.enumerate())


@pytest.fixture
def breaker(breakers: Breakers, monkeypatch: pytest.MonkeyPatch) -> SharedCircuitBreaker:
    """Half-open; leases outlast every pause of a busy machine, and are renewed often."""
    usual = probes_module.Probes._pause_s
    monkeypatch.setattr(
        probes_module.Probes, "_pause_s", lambda self: usual(self) and min(0.1, usual(self) or 0)
    )
    breaker = breakers.get("x", lease_s=600)
    breaker.half_open()
    return breaker


def test_a_probe_longer_than_its_lease_keeps_it(breaker: SharedCircuitBreaker) -> None:
    """A probe may take minutes; a lease is short so that a dead prober costs little."""
    permit = breaker.admit()
    expiry = lease_end(breaker, permit)

    wait_until(lambda: lease_end(breaker, permit) > expiry)

    breaker.record(permit, "success")

    assert (breaker.success_counter, breaker.peek().stale) == (1, 0)


def test_the_renewing_thread_lives_only_while_there_are_probes(
    breaker: SharedCircuitBreaker,
) -> None:
    """No thread for a healthy process, none before a fork."""
    wait_until(lambda: not renewing())
    permit = breaker.admit()
    assert renewing()

    breaker.record(permit, "neutral")

    wait_until(lambda: not renewing())


def test_a_probe_that_never_ends_is_given_up(
    breaker: SharedCircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After PROBE_MAX_S its lease is no longer renewed."""
    breaker.rules = replace(breaker.rules, lease_s=0.3)
    monkeypatch.setattr(probes_module, "PROBE_MAX_S", 0.1)
    permit = breaker.admit()

    wait_until(lambda: breaker.peek().probes == 0)

    assert permit.state == "half-open"


def test_a_probe_that_ends_in_an_outage_counts_here(
    breaker: SharedCircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease, granted by Redis, is known to the process that holds it."""
    permit = breaker.admit()

    def gone(*_: object) -> None:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(breaker._storage.redis, "record", gone)
    view = breaker.record(permit, "success")

    assert (view.source, view.state, view.successes, view.stale) == ("local", "half-open", 1, 0)


def test_a_dropped_permit_gives_its_lease_back(breaker: SharedCircuitBreaker) -> None:
    """Well before the lease would end."""
    permit = breaker.admit()
    assert breaker.peek().probes == 1

    del permit
    gc.collect()

    wait_until(lambda: breaker.peek().probes == 0)


def test_a_stream_never_begun_or_closed_early_gives_its_lease_back(
    breaker: SharedCircuitBreaker,
) -> None:
    """Neither its exhaustion nor its failure will ever be told."""

    def stream() -> Iterator[int]:
        yield 1
        yield 2

    never = breaker.call(stream)
    early = breaker.call(stream)
    next(early)
    assert breaker.peek().probes == 2

    early.close()
    del never
    gc.collect()

    wait_until(lambda: breaker.peek().probes == 0)
    assert breaker.current_state == "half-open"


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_coroutine_never_awaited_gives_its_lease_back(breaker: SharedCircuitBreaker) -> None:
    """Python warns of it; the breaker forgives it."""

    async def ask() -> None: ...

    call = breaker.call(ask)
    assert breaker.peek().probes == 1
    call.close()
    del call
    gc.collect()

    wait_until(lambda: breaker.peek().probes == 0)


def test_a_forked_child_leaves_the_parents_leases_alone(breaker: SharedCircuitBreaker) -> None:
    """The child has no thread, trusts no lock, and gives nothing of its parent's back."""
    permit = breaker.admit()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        code = 1
        try:
            del permit
            gc.collect()
            own = breaker.admit()
            wait_until(renewing)
            breaker.record(own, "neutral")
            code = 0 if breaker.peek().probes == 1 else 2
        finally:
            os._exit(code)

    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert breaker.peek().probes == 1
    breaker.record(permit, "success")
    assert breaker.success_counter == 1


def test_greenlets_go_through_one_breaker_side_by_side(redis_url: str) -> None:
    """Fifty are inside at once; gevent's own Timeout is neutral."""
    script = f"""
        from gevent import monkey; monkey.patch_all()
        import time, threading, gevent
        from breaker import Breakers
        from breaker.probes import Probes
        Probes._pause_s = lambda self: 0.1 if self._running else None
        breaker = Breakers.from_url({redis_url!r}).get("x", lease_s=600)
        all_inside = threading.Barrier(50, timeout=180)  # it breaks if they go one after another
        together = [gevent.spawn(breaker.call, all_inside.wait) for _ in range(50)]
        gevent.joinall(together, raise_error=True)
        for _ in range(6):
            try:
                with gevent.Timeout(0.01):
                    breaker.call(time.sleep, 5)
            except gevent.Timeout:
                pass
        assert breaker.fail_counter == 0, "a Timeout counted"
        breaker.half_open()
        permit, seq = breaker.admit(), breaker.peek().seq
        with gevent.Timeout(180):
            while breaker.peek().seq == seq:
                time.sleep(0.01)
        breaker.record(permit, "success")
        assert breaker.success_counter == 1, "the lease was not renewed"
    """
    done = run([sys.executable, "-c", textwrap.dedent(script)], fresh=True)

    assert done.returncode == 0, done.stderr

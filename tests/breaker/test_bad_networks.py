"""I11, I13, I15, I16 and I18 on networks, and before a server, that do what those do."""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from breaker import BreakerOpen, Breakers, failover
from breaker.redis_storage import RedisStorage
from breaker.state import Rules
from tests.support.fault_proxy import FaultProxy
from tests.support.valkey import Server
from tests.support.waiting import wait_until


@dataclass
class Way:
    """From the breakers to Redis, and what may happen on it."""

    proxy: FaultProxy
    server: Server

    def heal(self) -> None:
        self.server.thaw()
        self.proxy.heal()

    def failures(self, name: str = "x") -> int:
        """Ask Redis itself."""
        return int(self.server.client.hget(f"breaker:{{{name}}}", "failures"))


Fault = Callable[[Way], None]


def answers(error: str) -> Fault:
    return lambda way: way.proxy.answer(error)


SILENCES: dict[str, Fault] = {
    "black hole": lambda way: way.proxy.black_hole(),
    "lost replies": lambda way: way.proxy.lose_replies(),
    "late replies": lambda way: way.proxy.delay(60),
    "slow drip": lambda way: way.proxy.slow_drip(0.05),
    "frozen server": lambda way: way.server.freeze(),
}
REFUSALS: dict[str, Fault] = {
    "refused": lambda way: way.proxy.refuse(),
    "reset": lambda way: way.proxy.reset(at=1, n=None),
    "cut before": lambda way: way.proxy.cut(None, before=True),
    "cut after": lambda way: way.proxy.cut(None, before=False),
    "LOADING": answers("LOADING Redis is loading the dataset in memory"),
    "READONLY": answers("READONLY You can't write against a read only replica."),
    "OOM": answers("OOM command not allowed when used memory > 'maxmemory'."),
    "MISCONF": answers("MISCONF Redis is configured to save RDB snapshots"),
    "NOSCRIPT": answers("NOSCRIPT No matching script."),
}
FAULTS = SILENCES | REFUSALS

under = pytest.mark.parametrize
each_fault = under("fault", FAULTS.values(), ids=FAULTS)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of one's own, which may be frozen."""
    with Server() as running:
        yield running


@pytest.fixture
def way(server: Server) -> Iterator[Way]:
    """The way to it, and nothing in it."""
    server.client.flushall()
    with FaultProxy(server.port) as proxy:
        way = Way(proxy, server)
        yield way
        way.heal()


@pytest.fixture
def breakers(way: Way) -> Iterator[Breakers]:
    """A process' breakers at the other end."""
    made = Breakers.from_url(way.proxy.url)
    yield made
    made.close()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is asked again after a tenth of a second: not how often is tested, but what then."""
    monkeypatch.setattr(failover, "REDIS_RETRY_S", 0.1)


@pytest.mark.usefixtures("_impatient")
@each_fault
def test_i18_each_call_runs_once_and_brings_its_answer(
    way: Way, breakers: Breakers, fault: Fault
) -> None:
    """Whatever happens to the breaker's commands, with connections in use."""
    breaker = breakers.get("x")
    ran: list[int] = []

    def work(number: int) -> int:
        ran.append(number)
        return -number

    got = [breaker.call(work, number) for number in range(100)]
    fault(way)
    got += [breaker.call(work, number) for number in range(100, 200)]
    meanwhile = breakers.views()[0].source
    way.heal()
    got += [breaker.call(work, number) for number in range(200, 300)]

    assert ran == list(range(300))
    assert got == [-number for number in range(300)]
    assert meanwhile == "local"
    wait_until(lambda: breaker.peek().source == "redis")


@each_fault
def test_i18_an_exception_comes_out_as_it_is(way: Way, breakers: Breakers, fault: Fault) -> None:
    """Also when nobody can be told of it."""
    breaker = breakers.get("x")
    breaker.call(int)
    fault(way)

    with pytest.raises(ZeroDivisionError):
        breaker.call(lambda: 1 / 0)


@pytest.mark.usefixtures("_impatient")
def test_i18_one_fault_after_the_other(way: Way, breakers: Breakers) -> None:
    """Threads go on calling through all of them, in any order, with hardly a pause between."""
    breaker = breakers.get("x")
    numbers, over = iter(range(10**9)), threading.Event()
    ran: list[int] = []
    got: list[int] = []

    def work(number: int) -> int:
        ran.append(number)
        time.sleep(0.001)
        return number

    def call() -> None:
        while not over.is_set():
            got.append(breaker.call(work, next(numbers)))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for fault in random.Random(18).choices(list(FAULTS.values()), k=40):
        fault(way)
        time.sleep(0.02)
        way.heal()
        time.sleep(0.005)
    over.set()
    for thread in threads:
        thread.join()

    called = next(numbers)
    assert sorted(ran) == sorted(got) == list(range(called))
    wait_until(lambda: breaker.peek().source == "redis")


@each_fault
def test_i15_an_open_breaker_stays_open_and_a_closed_one_can_open(
    way: Way, breakers: Breakers, fault: Fault
) -> None:
    """The local stand-in goes by the same rules."""
    opened, closed = (
        breakers.get(name, fail_max=2, reset_timeout=600) for name in ("opened", "closed")
    )
    for _ in range(2):
        opened.record(opened.admit(), "failure")
    closed.call(int)
    fault(way)

    for _ in range(2):
        closed.record(closed.admit(), "failure", reason="ServerError")

    for breaker in (opened, closed):
        with pytest.raises(BreakerOpen) as refused:
            breaker.admit()
        assert 0 < refused.value.retry_in_s <= 600


def test_i15_an_open_breaker_stays_open_for_its_remaining_time(
    way: Way, breakers: Breakers
) -> None:
    """Then its probes go out, a bounded few, though Redis knows nothing of it."""
    breaker = breakers.get("x", fail_max=1, reset_timeout=1, max_probes=1)
    begun = time.monotonic()
    breaker.record(breaker.admit(), "failure")
    way.proxy.black_hole()

    while True:
        try:
            probe = breaker.admit()
            break
        except BreakerOpen:
            time.sleep(0.01)

    assert time.monotonic() - begun >= 1
    assert (probe.state, probe.view.source) == ("half-open", "local")
    with pytest.raises(BreakerOpen):
        breaker.admit()


@pytest.mark.usefixtures("_impatient")
@under("fault", ["lost replies", "frozen server", "refused", "reset", "cut after", "READONLY"])
def test_i11_when_redis_answers_redis_wins(way: Way, fault: str) -> None:
    """What was counted meanwhile is forgotten; a call admitted meanwhile is not recorded."""
    breakers = Breakers.from_url(way.proxy.url, timeout_s=1)  # a loaded machine is no outage
    breaker = breakers.get("x", fail_max=2)
    breaker.record(breaker.admit(), "failure")
    assert way.failures() == 1
    FAULTS[fault](way)
    late = breaker.admit()
    breaker.record(breaker.admit(), "failure")
    with pytest.raises(BreakerOpen):
        breaker.admit()

    way.heal()
    wait_until(lambda: breaker.peek().source == "redis")
    breaker.record(late, "failure")

    state = breaker.peek()
    assert (state.state, state.failures, way.failures()) == ("closed", 1, 1)
    assert [(view.generation, view.source) for view in breakers.views()] == [
        (state.generation, "redis")
    ]


def test_i11_an_answer_that_was_overtaken_changes_no_view(way: Way) -> None:
    """Two threads record; the answer to the first comes last, and is the older one."""
    breakers = Breakers.from_url(way.proxy.url, timeout_s=20)
    breaker = breakers.get("x")
    breaker.call(int)
    way.proxy.delay(60, n=1, match=b"failure")
    first = threading.Thread(target=lambda: breaker.record(breaker.admit(), "failure"))
    first.start()
    wait_until(lambda: way.proxy.struck == 1 and way.failures() == 1)

    breaker.record(breaker.admit(), "failure")
    way.proxy.heal()
    first.join(20)

    assert [view.failures for view in breakers.views()] == [2]
    breakers.close()


@each_fault
def test_i16_an_operators_word_holds_meanwhile(way: Way, breakers: Breakers, fault: Fault) -> None:
    """As it was when Redis last answered."""
    stopped, kept = breakers.get("stopped"), breakers.get("kept", fail_max=1)
    kept.record(kept.admit(), "failure")
    stopped.force("open")
    kept.force("closed")
    fault(way)

    with pytest.raises(BreakerOpen) as refused:
        stopped.admit()

    assert refused.value.reason == "forced"
    assert kept.call(lambda: "through") == "through"


@pytest.mark.usefixtures("_impatient")
def test_i16_a_word_said_meanwhile_is_heard_at_the_return(way: Way, breakers: Breakers) -> None:
    """Not before: the process has no way to know."""
    breaker = breakers.get("x")
    breaker.force("open")
    way.proxy.refuse()
    way.server.client.hdel("breaker:{x}", "forced")
    with pytest.raises(BreakerOpen):
        breaker.admit()

    way.heal()

    wait_until(lambda: breaker.peek().source == "redis")
    assert breaker.call(lambda: "through") == "through"


@under("fault", SILENCES.values(), ids=SILENCES)
def test_i15_a_silent_redis_costs_one_timeout_a_second_not_one_a_call(
    way: Way, breakers: Breakers, fault: Fault
) -> None:
    """In the first instant one for each thread that asks, side by side; pybreaker: 117 s a call."""
    breaker, threads_at_once, calls_each = breakers.get("x"), 20, 100
    fault(way)

    def call(_: int) -> None:
        for _ in range(calls_each):
            breaker.call(time.sleep, 0.01)

    begun = time.monotonic()
    with ThreadPoolExecutor(threads_at_once) as threads:
        list(threads.map(call, range(threads_at_once)))
    asked = threads_at_once + math.ceil(time.monotonic() - begun)

    assert way.proxy.commands["EVALSHA"] <= asked
    assert way.proxy.connections <= asked


@under(
    ("fault", "counted"),
    [("lost replies", 1), ("cut after", 1), ("cut before", 0), ("reset", 0), ("READONLY", 0)],
)
def test_i13_a_record_without_a_reply_is_not_sent_again(
    way: Way, breakers: Breakers, fault: str, counted: int
) -> None:
    """Nobody knows whether the server did it; a second one might count twice."""
    breaker = breakers.get("x")
    breaker.call(int)
    permit = breaker.admit()
    before = way.proxy.commands["EVALSHA"]

    FAULTS[fault](way)
    breaker.record(permit, "failure")
    way.heal()

    assert way.proxy.commands["EVALSHA"] == before + 1
    assert way.failures() == counted


def test_i13_an_admission_that_is_asked_again_takes_one_slot(way: Way) -> None:
    """By a client that repeats what got no reply; the token is the same, so is the grant."""
    client = redis.Redis.from_url(
        way.proxy.url, socket_timeout=0.2, retry=Retry(NoBackoff(), retries=1)
    )
    storage, rules = RedisStorage(client), Rules(max_probes=2)
    storage.force("x", rules, to="half-open")
    before = way.proxy.commands["EVALSHA"]
    way.proxy.lose_replies(1)

    answer = storage.admit("x", rules, "token")

    assert way.proxy.commands["EVALSHA"] == before + 2
    assert (answer.accepted, answer.view.probes) == (1, 1)


def test_i14_an_admission_whose_reply_is_lost_costs_one_lease(way: Way, breakers: Breakers) -> None:
    """The slot is taken, and free again when the lease has ended."""
    breaker = breakers.get("x", max_probes=2)
    breaker.half_open()
    way.proxy.lose_replies()
    breaker.admit()

    fields = way.server.client.hgetall("breaker:{x}")

    assert sum(name.startswith("probe:") for name in fields) == 1


def test_a_server_that_forgot_the_scripts_is_sent_them(way: Way, breakers: Breakers) -> None:
    """What was answered with NOSCRIPT did not run: running it now is no repetition."""
    breaker = breakers.get("x")
    way.proxy.answer("NOSCRIPT No matching script.", of="EVALSHA")

    breaker.record(breaker.admit(), "failure")

    assert (way.failures(), breakers.views()[0].source) == (1, "redis")
    assert way.proxy.commands["EVAL"] == way.proxy.commands["EVALSHA"] == 2

"""
Eight processes on one breaker of a real server, a provider that flaps, and kill -9 for whoever
probes: every step the server took, and all that anybody was told, is held against the laws.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from breaker import BreakerOpen, Breakers, Permit
from tests.support.breaker_history import History, Trace, judge, steps
from tests.support.breaker_stress import (
    EVENTS,
    LEASE_S,
    LONGEST_CALL_S,
    NAME,
    RULES,
    herd,
    torment,
)  # fmt: skip
from tests.support.waiting import wait_until

# A dead prober's lease, a reset, and as many calls one after the other as closing takes.
DUE_S = LEASE_S + RULES["reset_timeout"] + RULES["success_threshold"] * LONGEST_CALL_S
MARGIN_S = 5.0  # for a loaded machine


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(8, marks=pytest.mark.slow),
        pytest.param(60, marks=(pytest.mark.long, pytest.mark.timeout(400))),
    ],
)
def test_no_kill_breaks_a_law(redis_url: str, tmp_path: Path, seconds: int) -> None:
    """All invariants but I12, I15 and I16, over every step of a fleet whose probers die; then it closes."""
    client = redis.Redis.from_url(redis_url, decode_responses=True)

    with Trace(redis_url) as trace, herd(redis_url, tmp_path) as workers:
        run = torment(client, workers, seconds)
        taken = list(steps(trace.lines()))
        stream = [entry for _, entry in run.stream]
        found = judge(History(taken, stream, workers.logs(), frozenset(workers.killed)))

    told = {step.action.token for step in taken if step.action.kind == "record"}
    orphans = len(set(run.aimed) - told)
    figures = found.figures
    print(f"{len(workers.killed)} killed, {orphans} of them probing; {len(run.frozen)} stopped")
    print(*(f"{count} {what}" for what, count in sorted(figures.items())), sep=", ")
    print(f"closed {run.closed_after_s:.2f} s after the last prober was killed")
    assert not found.faults, "\n".join((f"{len(found.faults)} faults", *found.faults[:20]))
    assert run.closed_after_s < DUE_S + MARGIN_S
    # It proves little if little has happened.
    few = seconds // 6
    assert orphans >= few
    assert run.frozen
    assert len(workers.killed) - len(run.aimed) >= few
    assert figures["closed→open"] >= few
    assert figures["closed→open"] + figures["half-open→open"] >= seconds // 4
    assert figures["half-open→closed"] >= few
    assert figures["probes at once"] == RULES["max_probes"]
    assert figures["stale"] >= few
    assert figures["admissions"] >= 20 * seconds


def test_no_process_is_left_behind(redis_url: str, tmp_path: Path) -> None:
    """Whatever goes wrong, all stacks are told and all processes end."""
    pids: list[int] = []

    def get_into_trouble() -> None:
        with herd(redis_url, tmp_path) as workers:
            workers.start()
            pids.extend(workers.alive)
            wait_until(lambda: "run" in workers.logs().get(pids[0], ()))
            raise RuntimeError("trouble")

    with pytest.raises(RuntimeError, match="trouble") as caught:
        get_into_trouble()

    assert "in ask_provider" in "".join(caught.value.__notes__)
    wait_until(lambda: not any(map(_lives, pids)))


class Teller:
    """One client that tells a story with every state in it, and logs as a worker does."""

    def __init__(self, url: str) -> None:
        self.breaker = Breakers.from_url(url, timeout_s=20).get(NAME, **RULES)
        self.log: list[str] = []

    def admit(self) -> Permit:
        """Ask until it is let through."""
        while True:
            try:
                permit = self.breaker.admit()
            except BreakerOpen as error:
                self.log.append("refused")
                time.sleep(error.retry_in_s)
            else:
                self.log.append(f"grant {permit.token} {permit.view.generation} {permit.state}")
                self.log.append("run")
                return permit

    def tell(self, permit: Permit, outcome: Any) -> None:
        """Tell how the call ended."""
        self.log.append(f"tell {permit.token} {outcome}")
        view = self.breaker.record(permit, outcome, reason="ProviderDown")
        self.log.append(f"told {permit.token} {view.generation} {view.state}")

    def story(self) -> None:
        """Trip it, fail a probe, close it with two at once; one call is late."""
        late = self.admit()
        for _ in range(RULES["fail_max"]):
            self.tell(self.admit(), "failure")
        self.tell(late, "success")
        self.tell(self.admit(), "failure")
        first, second = self.admit(), self.admit()
        self.tell(first, "success")
        self.tell(second, "neutral")
        for _ in range(RULES["success_threshold"] - 1):
            self.tell(self.admit(), "success")
        self.tell(self.admit(), "success")


@pytest.fixture(scope="module")
def history(redis_server: str) -> Iterator[History]:
    """A true one."""
    client: Any = redis.Redis.from_url(redis_server, decode_responses=True)
    client.flushall()
    teller = Teller(redis_server)
    with Trace(redis_server) as trace:
        teller.story()
        taken = list(steps(trace.lines()))
    stream = [entry for _, entry in client.xrange(EVENTS)]
    yield History(taken, stream, {os.getpid(): teller.log})
    client.close()


def _which(history: History, kind: str, **fields: str) -> int:
    """Find the first step of this kind after which the hash has these fields."""
    return next(
        number
        for number, step in enumerate(history.taken)
        if step.action.kind == kind and fields.items() <= step.after.items()
    )


def _turn(history: History, to: str) -> int:
    return next(
        n for n, step in enumerate(history.taken) if any(e["to"] == to for e in step.entries)
    )


def _with(history: History, number: int, after: Any = None, **changes: Any) -> History:
    """Make one step another; `after` is laid over the hash."""
    taken = list(history.taken)
    step = taken[number]
    taken[number] = replace(step, after={**step.after, **(after or {})}, **changes)
    return replace(history, taken=taken)


def _two_probes_too_many(history: History) -> History:
    number = _which(history, "admit", state="half-open")
    end = str(history.taken[number].now_us // 1000 + 400)
    return _with(history, number, {"probe:p": end, "probe:q": end})


def _a_transition_the_stream_lacks(history: History) -> History:
    return replace(history, stream=[*history.stream[:1], *history.stream[2:]])


def _a_transition_nobody_made(history: History) -> History:
    taken = list(history.taken)
    del taken[_turn(history, "half-open")]
    return replace(history, taken=taken)


def _a_generation_that_goes_back(history: History) -> History:
    number = _turn(history, "half-open")
    entry = {**history.taken[number].entries[0], "generation": "7"}
    return _with(history, number, {"generation": "7"}, entries=(entry,))


def _a_grant_while_open(history: History) -> History:
    granted = {words.split()[1] for words in _log(history) if words.startswith("grant")}
    step = next(
        step
        for step in history.taken
        if step.action.kind == "admit" and step.action.token not in granted
    )
    lie = f"grant {step.action.token} {step.after['generation']} {step.after['state']}"
    return _logged(history, lambda log: [*log, lie])


def _open_left_too_early(history: History) -> History:
    number = _turn(history, "half-open")
    entry = history.taken[number].entries[0]
    early = {**entry, "at_ms": str(int(entry["at_ms"]) - 100)}
    return _with(history, number, entries=(early,))


def _a_success_after_its_lease(history: History) -> History:
    number = _which(history, "record", state="half-open", successes="1")
    return _with(history, number, now_us=history.taken[number].now_us + 10_000_000)


def _a_late_answer_that_counts(history: History) -> History:
    return _with(history, _which(history, "record", state="open", stale="1"), {"failures": "0"})


def _a_lease_that_outlives_half_open(history: History) -> History:
    number = _turn(history, "closed")
    end = str(history.taken[number].now_us // 1000 + 400)
    return _with(history, number, {"probe:p": end})


def _a_failed_probe_that_leaves_leases(history: History) -> History:
    number = next(
        n for n, s in enumerate(history.taken) if any(e["from"] == "half-open" for e in s.entries)
    )
    end = str(history.taken[number].now_us // 1000 + 400)
    return _with(history, number, {"probe:p": end})


def _a_lease_that_comes_back(history: History) -> History:
    number = _which(history, "record", state="half-open", successes="1") + 1
    end = str(history.taken[number].now_us // 1000 + 400)
    return _with(history, number, {"probe:p": end})


def _a_write_unseen(history: History) -> History:
    number = _which(history, "record", state="closed", failures="2")
    return replace(history, taken=[*history.taken[:number], *history.taken[number + 4 :]])


def _two_results_of_one_call(history: History) -> History:
    number = _which(history, "record", state="closed", failures="2")
    return replace(history, taken=[*history.taken, history.taken[number]])


def _a_lost_result(history: History) -> History:
    taken = [s for s in history.taken if s is not history.taken[-1]]
    return replace(history, taken=taken)


def _a_client_told_otherwise(history: History) -> History:
    return _logged(
        history, lambda log: [w.replace("half-open", "closed") if "told" in w else w for w in log]
    )


def _a_call_made_twice(history: History) -> History:
    return _logged(history, lambda log: [*log, "run"])


def _log(history: History) -> list[str]:
    return list(history.logs[os.getpid()])


def _logged(history: History, change: Callable[[list[str]], list[str]]) -> History:
    return replace(history, logs={os.getpid(): change(_log(history))})


@pytest.mark.parametrize(
    ("law", "lie"),
    [
        ("I4", _two_probes_too_many),
        ("I17", _a_transition_the_stream_lacks),
        ("I17", _a_transition_nobody_made),
        ("I10", _a_generation_that_goes_back),
        ("I3", _a_grant_while_open),
        ("I2", _open_left_too_early),
        ("I5", _a_success_after_its_lease),
        ("I3", _a_late_answer_that_counts),
        ("I9", _a_lease_that_outlives_half_open),
        ("I8", _a_failed_probe_that_leaves_leases),
        ("I5", _a_lease_that_comes_back),
        ("seq", _a_write_unseen),
        ("I13", _two_results_of_one_call),
        ("I13", _a_lost_result),
        ("I11", _a_client_told_otherwise),
        ("I18", _a_call_made_twice),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_lie_in_the_history_is_found(
    history: History, law: str, lie: Callable[[History], History]
) -> None:
    """A check that cannot fail proves nothing: the truth passes, each lie is reported by its law."""
    assert not judge(history).faults

    faults = judge(lie(history)).faults

    print(*faults, sep="\n")
    assert [fault for fault in faults if fault.startswith(f"{law} ")]


@pytest.mark.parametrize(
    ("law", "number"),
    [("I2", {"fail_max": 6}), ("I5", {"threshold": 4}), ("I4", {"max_probes": 1})],
)  # fmt: skip
def test_a_true_history_breaks_stricter_numbers(
    history: History, law: str, number: dict[str, int]
) -> None:
    """The bounds are judged exactly: one more or less is a fault."""
    strict = replace(history, numbers=replace(history.numbers, **number))

    assert any(fault.startswith(f"{law} ") for fault in judge(strict).faults)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

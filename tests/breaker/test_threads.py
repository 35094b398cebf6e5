"""A host that can start no more threads fails no call, and is asked again later."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from breaker import threads
from breaker.probes import Probes
from breaker.state import Rules


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_thread_that_cannot_start_is_none(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Once there is room, the next one starts."""

    def refuse(thread: threading.Thread) -> None:
        raise fault

    done = threading.Event()
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        assert threads.start(done.set, "t") is None

    assert threads.start(done.set, "t") is not None
    assert done.wait(60)


def test_probes_are_renewed_when_there_is_a_thread_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first probe runs without; the second one starts what keeps both."""
    renewed = threading.Event()
    rules = Rules(lease_s=0.03)
    view: Any = SimpleNamespace(name="claude")

    def renew(name: str, rules: Rules, tokens: list[str]) -> None:
        if sorted(tokens) == ["a", "b"]:
            renewed.set()

    probes = Probes(renew, lambda probe: None)
    with monkeypatch.context() as full:
        full.setattr(threads, "start", lambda *_: None)
        probes.add("a", view, rules)

    probes.add("b", view, rules)

    assert renewed.wait(60)
    probes.done("a")
    probes.done("b")

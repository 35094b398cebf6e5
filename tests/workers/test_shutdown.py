"""Signals come when they like: also while one is being handled."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from workers import shutdown
from workers.shutdown import Shutdown


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The process's keeper notes here that it was closed."""
    noted: list[bool] = []
    keeper = SimpleNamespace(close=lambda: noted.append(True))
    monkeypatch.setattr(shutdown.runtime, "runtime", lambda: SimpleNamespace(keeper=keeper))
    return noted


@pytest.fixture
def _term() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_may_interrupt_the_handling_of_another_at_any_line(closed: list[bool]) -> None:
    """A lock that the interrupted one holds would be waited for until the end of days."""
    ending = Shutdown(worker=None, grace_s=60)
    nested = False

    def interrupt(*_: Any) -> Any:
        nonlocal nested
        if not nested:
            nested = True
            ending.begin(at_once=False)
            nested = False
        return interrupt

    def handle() -> None:
        sys.settrace(interrupt)
        ending.begin(at_once=False)

    handling = threading.Thread(target=handle, daemon=True)
    handling.start()
    handling.join(5)

    assert not handling.is_alive()
    assert len(closed) > 2


@pytest.mark.usefixtures("_term")
def test_celery_handles_the_first_sigterm_alone(closed: list[bool]) -> None:
    """It holds a lock meanwhile; whatever comes then is ours."""
    handled: list[int] = []

    def celerys(number: int, _frame: Any) -> None:
        handled.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, celerys)
    shutdown.handle_second_sigterm(Shutdown(worker=None, grace_s=60))

    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)

    assert handled == [signal.SIGTERM]
    assert len(closed) == 2


def test_a_redis_that_does_not_answer_keeps_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends in its time though nothing could be given back; its children end, too."""
    asked, never, ended = threading.Event(), threading.Event(), threading.Event()

    def stop() -> None:
        asked.set()
        never.wait()

    keeper = SimpleNamespace(close=lambda: None, count=1, stop=stop)
    monkeypatch.setattr(shutdown.runtime, "runtime", lambda: SimpleNamespace(keeper=keeper))
    monkeypatch.setattr(shutdown, "EXIT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(shutdown.os, "_exit", lambda _code: ended.set())
    killed: list[int] = []
    monkeypatch.setattr(shutdown.os, "kill", lambda pid, _signal: killed.append(pid))
    pool = SimpleNamespace(_pool=SimpleNamespace(_pool=[SimpleNamespace(pid=1234567)]))

    ending = Shutdown(worker=SimpleNamespace(pool=pool), grace_s=60)
    ending.start()
    ending.begin(at_once=True)

    assert asked.wait(60)
    assert ended.wait(60)
    assert killed == [1234567]


def test_a_host_without_threads_keeps_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given back then; the leases run out."""
    ended = threading.Event()
    keeper = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(shutdown.runtime, "runtime", lambda: SimpleNamespace(keeper=keeper))
    monkeypatch.setattr(shutdown, "EXIT_TIMEOUT_S", 0)
    monkeypatch.setattr(shutdown.os, "_exit", lambda _code: ended.set())
    ending = Shutdown(worker=SimpleNamespace(pool=None), grace_s=60)
    ending.start()

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(shutdown.threading, "Thread", refuse)
    ending.begin(at_once=True)

    assert ended.wait(60)


def test_a_worker_has_a_grace_period_once_it_is_installed() -> None:
    """The option belongs to the app that is installed, and nothing else adds it."""
    app = Celery("another")
    before = set(app.user_options["worker"])

    shutdown.add_grace_option(app)

    assert before == set()
    assert [(option.name, option.envvar) for option in app.user_options["worker"]] == [
        ("grace", "BREAKWATER_GRACE_S")
    ]

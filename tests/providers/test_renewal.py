"""One registry takes the place of another: what stays, what is closed, and when."""

import gc
import os
import sys
from dataclasses import replace
from typing import Any

import pytest

from breakwater.attempt import Usage
from tasks.config import BreakerSettings, ProviderSettings, Role, Settings, Target
from tasks.providers.base import Completion, Request
from tasks.providers.registry import Registry


class Fake:
    """An adapter of one's own, which knows how often it was closed."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings
        self.closed = 0

    def complete(self, asked: Request) -> Completion:
        return Completion(self.settings.name, asked.model, "stop", Usage())

    def check(self) -> str:
        return "well"

    def close(self) -> None:
        self.closed += 1


OWN = f"{__name__}:Fake"
A = ProviderSettings("a", OWN, "m-1")
B = ProviderSettings("b", OWN, "m-1")


def settings(*providers: ProviderSettings) -> Settings:
    return Settings(
        providers={each.name: each for each in providers},
        roles={"coder": Role("coder", tuple(Target(p.name, p.model) for p in providers))},
    )


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Fake.__module__])


def test_what_the_file_says_as_before_is_kept() -> None:
    """The same client, with its connections; another rule of its breaker does not matter."""
    before = Registry(settings(A, B))
    kept: Any = before.provider("a")
    again = replace(A, breaker=BreakerSettings(fail_max=9))

    after = Registry(settings(again), before=before)
    del before
    gc.collect()

    assert after.provider("a") is kept
    assert not kept.closed


@pytest.mark.parametrize("after", [[B], [replace(A, model="m-2"), B]], ids=["removed", "changed"])
def test_a_client_is_closed_when_the_last_task_that_could_ask_it_is_done(
    after: list[ProviderSettings],
) -> None:
    """Not before: a task that began with it may come to it late in its chain."""
    before = Registry(settings(A, B))
    old: Any = before.provider("a")
    task = before

    now = Registry(settings(*after), before=before)
    del before
    gc.collect()
    while_it_runs = old.closed
    late = task.provider("a")
    del task
    gc.collect()

    assert while_it_runs == 0
    assert late is old
    assert old.closed == 1
    assert "a" not in now.settings.providers or now.provider("a") is not old


def test_a_child_closes_nothing_of_its_parents() -> None:
    """A client that was never built here is nobody's to close."""
    before = Registry(settings(A))
    old: Any = before.provider("a")

    pid = os.fork()
    if pid == 0:
        del before
        gc.collect()
        os._exit(old.closed)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert before.provider("a") is old

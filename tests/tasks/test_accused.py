"""A provider whose call workers are lost with, one after the other, is failing."""

from types import SimpleNamespace
from typing import Any

import pytest

from breaker import Breakers
from tasks.admission.health import HealthGate
from tasks.answering.execution import TaskExecution
from tasks.delivery.delivery_store import Begun
from tasks.delivery.lease import Lease
from tests.support.scripted import settings_over

SETTINGS = settings_over("claude")


def hand(breakers: Breakers, accused: str) -> Any:
    """Return a task in hand that was lost before."""
    one: Any = object.__new__(TaskExecution)
    one._lease = SimpleNamespace(accused=accused)
    one._runtime = SimpleNamespace(
        settings=SETTINGS,
        health=HealthGate(SETTINGS, breakers),
    )
    return one


@pytest.mark.parametrize(("accused", "failures"), [("", 0), ("claude", 1), ("gone", 0)])
def test_an_accused_provider_has_a_failure(breakers: Breakers, accused: str, failures: int) -> None:
    """One each; a provider that the roles file does not have any more has none."""
    hand(breakers, accused)._accuse()

    assert breakers.get("claude").fail_counter == failures


def test_many_losses_open_the_breaker_and_none_is_an_error(breakers: Breakers) -> None:
    """What kills worker after worker is not asked again."""
    for _ in range(20):
        hand(breakers, "claude")._accuse()

    assert breakers.get("claude").current_state == "open"


@pytest.mark.parametrize("fields", [{}, {"accused": "1"}])
def test_the_last_lost_call_is_the_accused_one(fields: dict[str, str]) -> None:
    """Of several; and only if the last loss was a lonely one."""
    calls = '{"provider": "a", "model": "m"}\n{"provider": "b", "model": "m"}'
    lease = Lease(None, "t", "w.1:1", "", keep_rows=list)  # type: ignore[arg-type]
    lease._read(Begun("run", "2", {"lost_calls": calls, "lost": "3", **fields}))

    assert lease.accused == ("b" if fields else "")


@pytest.mark.parametrize(
    ("lost", "alone", "is_given_up"), [(5, 3, True), (4, 4, False), (90, 2, False), (9, 9, True)]
)
def test_a_task_is_given_up_for_what_it_cost_alone(
    lost: int, alone: int, is_given_up: bool
) -> None:
    """Losses in company prove nothing, however many there are."""
    lease = Lease(None, "t", "w.1:1", "", keep_rows=list)  # type: ignore[arg-type]
    lease._read(Begun("run", "2", {"lost": str(lost), "lost_alone": str(alone)}))

    assert lease.is_given_up == is_given_up

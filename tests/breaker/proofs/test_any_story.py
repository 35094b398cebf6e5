"""
The real scripts against the reference model: hypothesis looks for a story they tell differently,
and shrinks it to the shortest one.
"""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.breaker.conftest import clocked_scripts
from tests.support.breaker_model import Numbers
from tests.support.breaker_pair import MOVES, Story


class Machine(RuleBasedStateMachine):
    """A story of any moves, by any numbers."""

    client: redis.Redis
    steps = 0

    @initialize(
        numbers=st.builds(
            Numbers,
            fail_max=st.integers(1, 4),
            threshold=st.integers(1, 3),
            max_probes=st.integers(1, 3),
            reset_ms=st.integers(1, 60),
            lease_ms=st.integers(1, 40),
            open_factor=st.integers(1, 3),
            open_max_ms=st.integers(60, 200),
            stable_ms=st.integers(1, 300),
        )
    )
    def begin(self, numbers: Numbers) -> None:
        self.story = Story(self.client, clocked_scripts(), numbers)


def _rule(move: str) -> Callable[..., Any]:
    def go(self: Machine, n: int) -> None:
        type(self).steps += 1
        getattr(self.story, move)(n)

    go.__name__ = move
    go.__doc__ = getattr(Story, move).__doc__
    return rule(n=st.integers(0, 99))(go)


@pytest.mark.parametrize(
    "examples",
    [
        40,
        pytest.param(150, marks=pytest.mark.slow),
        pytest.param(2500, marks=(pytest.mark.long, pytest.mark.timeout(1800))),
    ],
)
def test_no_story_is_told_differently(client: redis.Redis, examples: int) -> None:
    """Hash, stream and answers agree after every step; every entry begins where the last ended."""
    machine = type(
        "AnyStory", (Machine,), {"client": client, **{move: _rule(move) for move in MOVES}}
    )

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            database=None,
            derandomize=examples < 1000,  # the short form is the same every time
            suppress_health_check=list(HealthCheck),
        ),
    )

    print(f"{machine.steps} steps")
    assert machine.steps > examples * 10

"""
Everything that can happen to one breaker, in every order, for a few clients and small numbers.

First the laws are held against the model, then the model against the scripts that ship: each
operation is run by the real Lua from each state in which the walk meets it.
"""

import pytest
import redis

from tests.breaker.conftest import clocked_scripts
from tests.support.breaker_laws import Action
from tests.support.breaker_model import Step
from tests.support.breaker_pair import Pair
from tests.support.breaker_walk import Scope, Walk, with_change

LONG = (pytest.mark.long, pytest.mark.timeout(1800))


@pytest.mark.parametrize(
    "scope",
    [
        Scope(clients=2, back=False),
        Scope(clients=4, holds=False, loss=False, back=False, operator=False),
        pytest.param(Scope(clients=2), marks=LONG),
        pytest.param(Scope(clients=3), marks=LONG),
        pytest.param(Scope(clients=4, operator=False, back=False), marks=LONG),
    ],
    ids=lambda scope: f"{scope.clients} clients",
)
def test_no_interleaving_breaks_a_law(scope: Scope) -> None:
    """I1 to I10, I12 to I14 and I16 hold in every reachable state, and from each closed can be reached."""
    walk = Walk(scope).run()

    print(f"{walk.states} states, {walk.steps} steps")
    assert not walk.fault, "\n".join((walk.fault, *walk.story))
    assert walk.states > 400


@pytest.mark.parametrize(
    ("law", "rule", "broken"),
    [
        ("I1", "failures=s.failures + 1)", "failures=s.failures)"),
        ("I1", 'elif outcome == "success":\n            s = replace(s, failures=0)', 'elif outcome == "success":\n            s = s'),
        ("I2", ">= self.numbers.fail_max:", "> self.numbers.fail_max:"),
        ("I2", "if now < s.open_until:", "if now < s.open_until - 1:"),
        ("I3", '        if s.state == "open":', '        if s.state == "open" and token[0] != "1":'),
        ("I4", "if len(s.leases) >= room:", "if len(s.leases) > room:"),
        ("I5", "if s.successes >= self.numbers.threshold:", "if s.successes >= 1:"),
        ("I5", 'stale or (s.state == "half-open" and token not in s.leases)', "stale"),
        ("I1", 'generation != s.generation or s.state == "open"', 's.state == "open"'),
        ("I6", 'generation != s.generation or s.state == "open"', "generation != s.generation"),
        ("I7", "if other != token}", 'if other != token or outcome == "neutral"}'),
        ("I8", 'if s.state == "half-open" or trip', "if trip"),
        ("I9", "            leases={},\n            told", "            told"),
        ("I10", "generation = max(s.generation + 1, now_us)", "generation = now_us"),
        ("I12", "open_until=min(b.open_until, now + b.open_for)", "open_until=b.open_until"),
        ("I12", "token: min(expiry, lease_end)", "token: expiry"),
        ("I13", "if token in s.leases:", "if False:"),
        ("I14", "if expiry > now and b.state", "if b.state"),
        ("I16", 'if s.forced == "open":', "if False:"),
        ("I16", 'if s.forced == "closed":', 'if s.forced == "closed" and s.state == "closed":'),
        ("I17", "            s.state, to, reason", '            "closed", to, reason'),
        ("hold", "if s.held_until > now:", "if False:"),
        ("hold", "if retry_ms and now + retry_ms > s.held_until:", "if True:"),
    ],
)  # fmt: skip
def test_the_laws_catch_a_broken_rule(law: str, rule: str, broken: str) -> None:
    """A check that cannot fail proves nothing: each broken rule is found, by the law it breaks."""
    walk = Walk(Scope(clients=2), with_change(rule, broken)).run()

    print(walk.fault, *walk.story, sep="\n")
    assert walk.fault.startswith(f"{law} " if law != "hold" else "hold:")


@pytest.mark.parametrize(
    ("scope", "every"),
    [
        (Scope(clients=2, holds=False, proof=False, back=False, operator=False), 1),
        pytest.param(Scope(clients=2, back=False), 50, marks=pytest.mark.slow),
        pytest.param(Scope(clients=2), 1, marks=LONG),
    ],
    ids=["a small walk", "a sample", "each operation"],
)
def test_the_scripts_do_what_the_model_does(client: redis.Redis, scope: Scope, every: int) -> None:
    """From each state, each operation of the real Lua leaves what the model says, and answers it."""
    scripts, compared = clocked_scripts(), 0

    for number, (node, action, step) in enumerate(Walk(scope).transitions()):
        if number % every == 0:
            pair = Pair(client, scripts, scope.numbers, node.breaker, node.now_us)
            told = do(pair, action)
            assert told.accepted == step.accepted, f"{action}\nfrom {node}"
            compared += 1

    print(f"{compared} operations")
    assert compared > 500


def do(pair: Pair, action: Action) -> Step:
    """Run an operation of the walk on the scripts and the model; they must agree."""
    if action.kind == "admit":
        return pair.admit(action.token)
    if action.kind == "renew":
        return pair.renew(action.token)
    if action.kind == "force":
        return pair.force(action.to, action.forced)
    return pair.record(
        action.token, action.generation, action.outcome,
        retry_ms=action.retry_ms, trip=action.trip,
    )  # fmt: skip

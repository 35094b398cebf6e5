"""
Everything that can happen to one breaker, in every order, for a few clients and small numbers.

First the laws are held against the model, then the model against the scripts that ship: each
operation is run by the real Lua from each state in which the walk meets it.
"""

import fakeredis
import pytest
import redis

from breaker.state import Answer, Report, Rules
from breaker.storage import RedisStorage
from tests.breaker.conftest import CLOCK, clocked_scripts
from tests.support.breaker_laws import Action
from tests.support.breaker_model import Breaker, Numbers, Step
from tests.support.breaker_walk import Node, Scope, Walk, with_change

KEY, EVENTS = "breaker:{x}", "breaker:{x}:events"
FIELDS = {
    "failures": "failures", "successes": "successes", "generation": "generation",
    "open_until": "open_until_ms", "open_for": "open_for_ms", "held_until": "held_until_ms",
    "held_for": "held_for_ms", "since": "since_ms", "trips": "trips", "stale": "stale",
}  # fmt: skip
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
    ("rule", "broken"),
    [
        ("if len(s.leases) >= room:", "if len(s.leases) > room:"),
        ('stale = generation != s.generation or s.state == "open"', 'stale = s.state == "open"'),
        ("if now < s.open_until:", "if now < s.open_until - 1:"),
        ("s.failures >= self.numbers.fail_max:", "s.failures > self.numbers.fail_max:"),
        ("if s.successes >= self.numbers.threshold:", "if s.successes >= 1:"),
        ("            leases={},\n            told", "            told"),
        ('if (s.state == "half-open" and token not in s.leases):', "if False:"),
        ("generation = max(s.generation + 1, now_us)", "generation = max(s.generation, 7)"),
        ("s = replace(s, failures=s.failures + 1)", "s = replace(s, failures=s.failures + 2)"),
    ],
)  # fmt: skip
def test_the_laws_catch_a_broken_rule(rule: str, broken: str) -> None:
    """A check that cannot fail proves nothing: each broken rule is found, with its story."""
    rule = rule.replace("if (s.state", "if stale or (s.state")

    walk = Walk(Scope(clients=3, back=False), with_change(rule, broken)).run()

    assert walk.fault, "nobody noticed"
    assert walk.story


@pytest.fixture(params=["fakeredis", "server"])
def client(request: pytest.FixtureRequest) -> redis.Redis:
    """Where the scripts run."""
    if request.param == "fakeredis":
        return fakeredis.FakeRedis(decode_responses=True)
    return redis.Redis.from_url(request.getfixturevalue("redis_url"), decode_responses=True)


@pytest.mark.parametrize(
    "every", [97, pytest.param(1, marks=LONG)], ids=["a sample", "each operation"]
)
def test_the_scripts_do_what_the_model_does(client: redis.Redis, every: int) -> None:
    """From each state, each operation of the real Lua leaves what the model says, and answers it."""
    scope = Scope(clients=2)
    storage = RedisStorage(client, clocked_scripts())
    compared = 0

    for number, (node, action, step) in enumerate(Walk(scope).transitions()):
        if number % every == 0:
            compare(storage, scope.numbers, node, action, step)
            compared += 1

    print(f"{compared} operations")
    assert compared > 1000


def compare(
    storage: RedisStorage, numbers: Numbers, node: Node, action: Action, step: Step
) -> None:
    client = storage.client
    put(client, node)

    answer = run(storage, rules_of(numbers), action)

    story = f"{action}\nfrom {node}"
    assert answer.verdict == step.verdict, story
    if action.kind == "admit":
        assert round(answer.wait_s * 1000) == step.wait_ms, story
    assert stored(client) == expected(step.after), story
    told = [fields for _, fields in client.xrange(EVENTS)][1 if node.breaker.told else 0 :]
    assert [(e["from"], e["to"], e["failures"], e["generation"]) for e in told] == [
        (e.before, e.to, str(e.failures), str(e.generation)) for e in step.events
    ], story


def put(client: redis.Redis, node: Node) -> None:
    """Bring the store to where the walk stands."""
    with client.pipeline(transaction=False) as pipe:
        pipe.delete(KEY, EVENTS)
        pipe.set(CLOCK, node.now_us)
        if node.breaker.told:
            to, generation = node.breaker.told
            pipe.xadd(EVENTS, {"to": to, "generation": generation})
        if fields := expected(node.breaker):
            pipe.hset(KEY, mapping=fields)
        pipe.execute()


def run(storage: RedisStorage, rules: Rules, action: Action) -> Answer:
    if action.kind == "admit":
        return storage.admit("x", rules, action.token)
    if action.kind == "renew":
        return storage.renew("x", rules, [action.token])
    if action.kind == "force":
        return storage.force("x", rules, to=action.to or None, forced=action.forced)
    report = Report(
        action.token, action.generation, action.outcome,
        retry_after_s=action.retry_ms / 1000, trip=action.trip,
    )  # fmt: skip
    return storage.record("x", rules, report)


def rules_of(numbers: Numbers) -> Rules:
    return Rules(
        fail_max=numbers.fail_max, success_threshold=numbers.threshold,
        max_probes=numbers.max_probes, reset_timeout_s=numbers.reset_ms / 1000,
        lease_s=numbers.lease_ms / 1000, open_factor=numbers.open_factor,
        open_max_s=numbers.open_max_ms / 1000, stable_s=numbers.stable_ms / 1000,
    )  # fmt: skip


def expected(b: Breaker) -> dict[str, str]:
    """The hash of a model's breaker."""
    forced = {"forced": b.forced} if b.forced else {}
    if b.lost:
        return forced
    return {
        **forced,
        "state": b.state,
        "reason": b.reason,
        **{field: str(getattr(b, name)) for name, field in FIELDS.items()},
        **{f"probe:{token}": str(expiry) for token, expiry in b.leases.items()},
    }


def stored(client: redis.Redis) -> dict[str, str]:
    """The hash in the store, but for who wrote it and how often."""
    fields = client.hgetall(KEY)
    return {k: v for k, v in fields.items() if k not in ("who", "seq")}

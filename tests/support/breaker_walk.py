"""
Walk through everything that can happen to one breaker: every order of every action of a few
clients, of time, of the operator and of data loss, until nothing new turns up.

States that differ only in what no rule can tell apart (absolute times and generations, which
client is which) are one state; each keeps a concrete representative to go on from.
"""

import inspect
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from tests.support import breaker_model
from tests.support.breaker_laws import Action, Books, broken
from tests.support.breaker_model import Breaker, Model, Numbers, Step

BACK_MS = 5  # how far the server's clock steps back; further than any deadline here reaches
RETRY_MS = 3
START_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Permit:
    """What a client holds between admission and record."""

    token: str
    generation: int


@dataclass(frozen=True, slots=True)
class Node:
    """One state of the world: the store, its clock, and what the clients hold."""

    breaker: Breaker
    now_us: int
    clients: tuple[Permit | None, ...]
    books: Books = Books()
    may_step_back: bool = True
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What happens in a walk, apart from calls, their outcomes and time."""

    clients: int = 2
    numbers: Numbers = Numbers()
    holds: bool = True
    proof: bool = True
    loss: bool = True
    back: bool = True
    operator: bool = True


@dataclass(slots=True)
class Walk:
    """
    All that was seen; breadth first, so that the first fault has the shortest story.

    Args:
        scope: What may happen.
        rules: The module of the model; a broken one proves that the laws can be broken.
    """

    scope: Scope
    rules: ModuleType = breaker_model
    states: int = 0
    steps: int = 0
    fault: str = ""
    story: tuple[str, ...] = ()
    _from: dict[Any, tuple[Any, str]] = field(default_factory=dict)

    def run(self) -> "Walk":
        """Walk to the end, or to the first fault."""
        for _ in self.transitions():
            pass
        return self

    def transitions(self) -> Iterator[tuple[Node, Action, Step]]:
        """Yield each operation on the store once for each state it can meet."""
        model: Model = self.rules.Model(self.scope.numbers)
        start = Node(self.rules.Breaker(), START_US, (None,) * self.scope.clients)
        seen = {_key(start, model)}
        todo = deque([(start, _key(start, model))])
        self._from = {todo[0][1]: (None, "")}
        while todo:
            node, key = todo.popleft()
            self.states += 1
            if slow := _stuck(node, model):
                self._blame(slow, key, "then every call succeeds")
                return
            for what, after, action, step in _next(node, model, self.scope):
                self.steps += 1
                if action and step:
                    yield node, action, step
                    now = node.now_us // 1000
                    before = model.seen(node.breaker, node.now_us)
                    fault, books = broken(self.scope.numbers, action, before, step, now, node.books)
                    after = replace(after, books=books)
                    if fault:
                        self._blame(fault, key, what)
                        return
                key_after = _key(after, model)
                if key_after not in seen:
                    seen.add(key_after)
                    self._from[key_after] = (key, what)
                    todo.append((after, key_after))

    def _blame(self, fault: str, key: Any, last: str) -> None:
        story = [last]
        while key is not None:
            key, what = self._from[key]
            story.append(what)
        self.fault, self.story = fault, tuple(reversed(story[:-1]))


def with_change(old: str, new: str) -> ModuleType:
    """Return the model with one line of it changed."""
    source = inspect.getsource(breaker_model)
    assert source.count(old) == 1, f"{source.count(old)} times in the model: {old}"
    changed = ModuleType("broken_model")
    exec(compile(source.replace(old, new), "broken_model", "exec"), changed.__dict__)
    return changed


def _next(
    node: Node, model: Model, scope: Scope
) -> Iterator[tuple[str, Node, Action | None, Step | None]]:
    """Yield whatever may happen now: in words, the world after, and the operation if it was one."""
    for number, permit in enumerate(node.clients):
        name = f"client {number}"
        if permit is None:
            token = f"{number}.{node.tokens}"
            step = model.admit(node.breaker, node.now_us, token)
            granted = Permit(token, step.seen.generation) if step.accepted else None
            after = replace(_moved(node, number, granted, step), tokens=node.tokens + 1)
            yield f"{name} asks", after, Action("admit", token), step
            continue
        asked = Action("admit", permit.token, permit.generation)
        step = model.admit(node.breaker, node.now_us, permit.token)
        # Its first answer may have been lost on the way; it goes by the second.
        again = Permit(permit.token, step.seen.generation) if step.accepted else None
        yield f"{name} asks again", _moved(node, number, again, step), asked, step
        for action in _outcomes(permit, scope):
            step = model.record(
                node.breaker, node.now_us, permit.token, permit.generation, action.outcome,
                retry_ms=action.retry_ms, trip=action.trip,
            )  # fmt: skip
            what = f"{name}: {action.outcome}" + f", retry after {action.retry_ms} ms" * bool(
                action.retry_ms
            )
            yield what + ", proof" * action.trip, _moved(node, number, None, step), action, step
        step = model.renew(node.breaker, node.now_us, [permit.token])
        renewal = Action("renew", permit.token)
        yield f"{name} renews", _moved(node, number, permit, step), renewal, step
        yield f"{name} dies", _moved(node, number, None), None, None
    yield "1 ms passes", replace(node, now_us=node.now_us + 1_000), None, None
    if scope.back and node.may_step_back and not node.breaker.lost:
        back = replace(node, now_us=node.now_us - BACK_MS * 1_000, may_step_back=False)
        yield "the clock steps back", back, None, None
    # No generation can outgrow one that nobody remembers while the clock is behind it.
    if scope.loss and node.now_us > node.books.newest and not node.breaker.lost:
        nothing = type(node.breaker)
        told = node.breaker.told
        yield "the hash is lost", replace(node, breaker=nothing(told=told)), None, None
        yield "everything is lost", replace(node, breaker=nothing()), None, None
    if scope.operator:
        yield from _operator(node, model)


def _outcomes(permit: Permit, scope: Scope) -> Iterator[Action]:
    for outcome in ("success", "failure", "neutral"):
        base = Action("record", permit.token, permit.generation, outcome)
        yield base
        if scope.holds:
            yield replace(base, retry_ms=RETRY_MS)
    if scope.proof:
        yield Action("record", permit.token, permit.generation, "failure", trip=True)


def _operator(node: Node, model: Model) -> Iterator[tuple[str, Node, Action | None, Step | None]]:
    for to in ("open", "half-open", "closed"):
        step = model.force(node.breaker, node.now_us, to=to)
        after = _moved(node, 0, node.clients[0], step)
        yield f"an operator: {to}", after, Action("force", to=to), step
    for forced in {"open", "closed", ""} - {node.breaker.forced}:
        after = replace(node.breaker, forced=forced)
        yield f"HSET forced '{forced}'", replace(node, breaker=after), None, None


def _moved(node: Node, number: int, permit: Permit | None, step: Step | None = None) -> Node:
    clients = (*node.clients[:number], permit, *node.clients[number + 1 :])
    breaker = step.after if step else node.breaker
    # Two scripts never run in the same microsecond.
    return replace(node, breaker=breaker, clients=clients, now_us=node.now_us + 1)


def _key(node: Node, model: Model) -> tuple[Any, ...]:
    """What the rules can tell of a state, and nothing else."""
    now, floor = node.now_us // 1000, -BACK_MS if node.may_step_back else 0
    # While the clock may still step back, what is over but not yet written over may come again.
    b = node.breaker if node.may_step_back else model.seen(node.breaker, node.now_us)

    def left(deadline: int) -> int | None:
        return max(deadline - now, floor) if deadline and deadline - now > floor else None

    held = {p.token for p in node.clients if p}
    clients = sorted(
        (p is not None, p is not None and p.generation == b.generation and not b.lost,
         left(b.leases.get(p.token, 0) if p else 0) or -99, p is not None and p.token in node.books.won)
        for p in node.clients
    )  # fmt: skip
    orphans = sorted(
        left(end) or -99 for t, end in b.leases.items() if t not in held and left(end) is not None
    )
    closed = b.state == "closed"
    return (
        b.state, b.failures if closed else 0, b.successes, b.lost, b.forced, b.told and b.told[0],
        left(b.open_until), b.open_for if node.may_step_back else 0,
        left(b.held_until), b.held_for if node.may_step_back else 0,
        tuple(clients), tuple(orphans), node.may_step_back,
        node.books.run if closed else 0, len(node.books.won),
        max(0, node.books.newest // 1000 - now) if not node.may_step_back else 0,
    )  # fmt: skip


def _stuck(node: Node, model: Model) -> str:
    """I14: all clients die, one new client's calls succeed; closed comes when the waits are over."""
    b = replace(node.breaker, forced="")
    now_us = node.now_us
    s = model.seen(b, now_us)
    deadlines = (s.open_until, s.held_until, *s.leases.values())
    latest = max((end - now_us // 1000 for end in deadlines), default=0)
    end_us = now_us + max(0, latest) * 1000
    for attempt in range(20):
        step = model.admit(b, now_us, f"last.{attempt}")
        b = step.after
        if b.state == "closed" and step.accepted:
            return "" if now_us // 1000 <= end_us // 1000 else "I14 closed later than it had to"
        if step.accepted:
            b = model.record(
                b, now_us + 1, f"last.{attempt}", step.seen.generation, "success"
            ).after
            now_us += 2
        else:
            now_us += step.wait_ms * 1000
    return "I14 closed cannot be reached"

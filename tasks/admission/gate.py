"""
May this target be called now? The question of admission, and the gates that answer it.

A gate guards targets for one reason: the health of a provider, say. The walk of a chain asks
`Gates`, which asks each gate in order. A new gate is one file with a class that has the methods of
`Gate`, and one line in `tasks.answering.runtime.build_gate`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Protocol

import structlog

from breakwater.attempt import Cost, Usage
from breakwater.calls.call import CompletionCall
from tasks.config import Role, Target

_log = structlog.get_logger("breakwater")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call may use, before it is made."""

    input_tokens: int
    """Counted from the number of characters: a guess, not a bound."""
    max_output_tokens: int | None
    """None where the request sets no limit."""
    cost_usd: Decimal | None
    """At most, in US dollars; None without a price or without a limit of the output."""


@dataclass(eq=False)  # neither frozen, which costs 1 µs a call, nor slots: of `cached_property`
class Ask:
    """One call that wants to go out: everything that a gate may look at."""

    task_id: str
    call: CompletionCall
    role: Role
    target: Target
    estimator: Callable[[], Estimate] = field(repr=False)

    @cached_property
    def estimate(self) -> Estimate:
        """What the call may use; computed for the first gate that reads it, and only then."""
        return self.estimator()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an admitted call ended."""

    error: BaseException | None = None
    """None for an answer."""
    usage: Usage | None = None
    """None where the provider reported none."""
    cost: Cost | None = None
    """None where the provider reported no usage."""


class NotSent(Exception):  # noqa: N818 - an outcome, never raised
    """The call was admitted and never sent, because a later gate refused it."""


NOT_SENT = Outcome(NotSent())
"""Neutral: no provider is to blame, and whatever a gate had reserved is free again."""


class Refused(Exception):  # noqa: N818 - not a failure: another target may serve
    """
    A gate does not admit a call now.

    Args:
        by: Which gate: "breaker", say.
        retry_in_s: Seconds until the target may be asked again.
        why: The reason in words, for the attempt.
        error: The attempt's `error`.
    """

    def __init__(self, by: str, retry_in_s: float, why: str, error: str = "Refused") -> None:
        super().__init__(by, retry_in_s, why)
        self.by = by
        self.retry_in_s = retry_in_s
        self.why = why
        self.error = error


@dataclass(frozen=True, slots=True)
class GateState:
    """What a gate would answer now."""

    opens_in_s: float = 0.0
    """Seconds until it admits a call; 0: now."""
    reasons: tuple[str, ...] = ()
    """Why it admits none, in words; empty if it does."""
    admits_all: bool = True
    """Whether every call is admitted; False while only a few trials are, or none."""


class Pass(Protocol):
    """
    Leave to make one call.

    A pass that is dropped without `settle` is neutral. The finalizer that gives back what it holds
    may run in any thread: no lock and no I/O there.
    """

    @property
    def is_probe(self) -> bool:
        """Whether the call tests if its target has recovered."""

    def settle(self, outcome: Outcome) -> bool:
        """
        Report how the call ended; the first report counts, and any later one is ignored.

        Returns:
            Whether the gate admits every call of this target now.
        """


class Gate(Protocol):
    """One reason why a target may not be called now."""

    def admit(self, ask: Ask) -> Pass:
        """
        Admit one call, or refuse it.

        Raises:
            Refused: Not now.
        """

    def look(self, target: Target) -> GateState:
        """Return what the gate would answer; a look takes nothing and writes nothing."""

    def opens_in_s(self, target: Target) -> float:
        """Return the seconds until a call may be admitted; 0: now. A look, as `look`."""

    def signals(self, target: Target) -> tuple[str, ...]:
        """Return the keys of the Redis streams that get an entry when the gate may have opened."""


class Gates:
    """
    Several gates as one.

    Args:
        gates: In the order in which they are asked. The cheapest to undo comes first.
    """

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = tuple(gates)

    def admit(self, ask: Ask) -> Pass:
        """
        Ask each gate in order; if one refuses, settle the passes of those before it as neutral.

        Raises:
            Refused: The first gate that refuses.
        """
        passes: list[Pass] = []
        try:
            for gate in self._gates:
                passes.append(gate.admit(ask))
        except BaseException:
            _Passes(passes).settle(NOT_SENT)
            raise
        return _Passes(passes)

    def look(self, target: Target) -> GateState:
        """Return what all gates together would answer."""
        states = [gate.look(target) for gate in self._gates]
        return GateState(
            opens_in_s=max((state.opens_in_s for state in states), default=0.0),
            reasons=tuple(reason for state in states for reason in state.reasons),
            admits_all=all(state.admits_all for state in states),
        )

    def opens_in_s(self, target: Target) -> float:
        """Return the seconds until every gate may admit a call; 0: now."""
        return self.look(target).opens_in_s

    def signals(self, target: Target) -> tuple[str, ...]:
        """Return the streams of all gates."""
        return tuple(key for gate in self._gates for key in gate.signals(target))


class _Passes:
    """The passes of several gates for one call."""

    __slots__ = ("_passes", "_unsettled")

    def __init__(self, passes: list[Pass]) -> None:
        self._passes = passes
        self._unsettled = [True]  # list.pop() gives it to one thread only

    @property
    def is_probe(self) -> bool:
        return any(each.is_probe for each in self._passes)

    def settle(self, outcome: Outcome) -> bool:
        try:
            self._unsettled.pop()
        except IndexError:
            return False
        admits_all = True
        for each in reversed(self._passes):
            admits_all = _settle(each, outcome) and admits_all
        return admits_all


def _settle(one: Pass, outcome: Outcome) -> bool:
    try:
        return one.settle(outcome)
    except Exception as error:  # noqa: BLE001 - the answer is paid for, and other gates have to settle
        _log.error("gate.settle_failed", error=type(error).__name__)
        return False


def closed_for(gate: Gate, targets: Iterable[Target]) -> tuple[float, str]:
    """
    Look for how long none of these targets may be called.

    Returns:
        Seconds until the first may be, and why none may now; 0 and "" if one may.
    """
    waits_s: list[float] = []
    reasons: set[str] = set()
    for target in targets:
        state = gate.look(target)
        if not state.opens_in_s:
            return 0.0, ""
        waits_s.append(state.opens_in_s)
        reasons.update(state.reasons)
    return min(waits_s), ", ".join(sorted(reasons))

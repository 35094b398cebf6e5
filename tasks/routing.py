"""
The walk of a role's chain: the first target that may be asked and answers, serves.

Nothing here waits. When no target can serve now, `NothingAvailable` says how soon one might, and
the task goes back to Redis; a worker never sleeps on a provider's behalf.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from breaker import BreakerOpen
from tasks import errors
from tasks.call import Call
from tasks.config import Role, Target
from tasks.errors import BreakwaterError, Cancelled, ChainExhausted, DeadlineExceeded, ProviderError
from tasks.ledger import RETRIED, Attempt
from tasks.ledger import record as write_attempt
from tasks.providers.base import Completion, Request
from tasks.providers.registry import Registry, settle

Clock = Callable[[], float]


class Calls(Protocol):
    """Who wants to know of each call, before its first byte goes out and when it has failed."""

    def calling(self, provider: str, model: str) -> None:
        """Note that a call goes out; if this raises, it does not."""

    def called(self) -> None:
        """Note that it has failed."""


@dataclass(frozen=True, slots=True)
class Routed:
    """A completion, who gave it, and what was tried before."""

    completion: Completion
    target: Target
    attempts: list[Attempt]
    closed: bool
    """The target's breaker is closed: others may come as they like."""


class NothingAvailable(Exception):  # noqa: N818 - not a failure: the task waits
    """
    No target can serve now, but one may later.

    Args:
        attempts: What this walk tried and passed over.
        wait_s: Seconds until the earliest target may be asked again, as the breakers told.
    """

    def __init__(self, attempts: list[Attempt], wait_s: float) -> None:
        super().__init__(attempts, wait_s)
        self.attempts = attempts
        self.wait_s = wait_s


def route(
    call: Call,
    role: Role,
    registry: Registry,
    *,
    task_id: str,
    deadline: float,
    calls: Calls | None = None,
    earlier: Sequence[dict[str, Any]] = (),
    clock: Clock = time.monotonic,
) -> Routed:
    """
    Ask the role's targets in order until one answers.

    Args:
        deadline: When the task must be done, on `clock`.
        calls: Told of every call.
        earlier: Attempts of earlier walks for this task, as in the result; a target that refused
            this very prompt is not asked again.

    Raises:
        NothingAvailable: Every target is down or held back; try again later.
        ProviderError: The prompt is at fault, or the call was cancelled.
        ChainExhausted: Every target refused this prompt; waiting will not help.
        DeadlineExceeded: The deadline passed on the way.
    """
    walk = _Walk(call, role, registry, task_id, deadline, calls, clock)
    try:
        for target in role.chain:
            if refusal := _refused_before(target, earlier):
                walk.reject(target, refusal, f"refused this prompt before: {refusal}")
            elif completion := walk.ask(target):
                return Routed(completion, target, walk.attempts, walk.closed)
        raise walk.verdict()
    except BreakwaterError as error:
        error.details["attempts"] = [*earlier, *(a.as_dict() for a in walk.attempts)]
        raise


class _Walk:
    """What one walk of the chain has learned so far."""

    def __init__(
        self,
        call: Call,
        role: Role,
        registry: Registry,
        task_id: str,
        deadline: float,
        calls: Calls | None,
        clock: Clock,
    ) -> None:
        self.call = call
        self.role = role
        self.registry = registry
        self.task_id = task_id
        self.deadline = deadline
        self.calls = calls
        self.clock = clock
        self.attempts: list[Attempt] = []
        self.waits_s: list[float] = []
        self.last_error: ProviderError | None = None
        self.closed = False

    def ask(self, target: Target) -> Completion | None:
        """Admit, call, record. Return the completion, or None to go on to the next target."""
        if self.clock() >= self.deadline:
            raise DeadlineExceeded(
                f"the deadline of the task passed before {target.provider!r} could be asked"
            )
        breaker = self.registry.breaker(target.provider)
        try:
            permit = breaker.admit()
        except BreakerOpen as refused:
            self.waits_s.append(refused.retry_in_s)
            self.reject(target, "BreakerOpen", _why_refused(refused))
            return None
        why = self._why_chosen(permit.state)
        started = self.clock()
        try:
            completion = self._call(target)
        except ProviderError as error:
            settle(breaker, permit, error)
            if self.calls and not isinstance(error, Cancelled):  # which may be paid for
                self.calls.called()
            self._failed(target, error, started, why)
            if not error.verdict.next_target:
                raise
            return None
        except BaseException as error:
            settle(breaker, permit, error)
            raise
        self.closed = settle(breaker, permit, None).state == "closed"
        self._add(
            Attempt(
                target.provider, completion.model, "succeeded",
                latency_ms=self._since_ms(started), why=why,
            ),
            completion,
        )  # fmt: skip
        return completion

    def reject(self, target: Target, error: str, why: str) -> None:
        """Note a target that was passed over."""
        self._add(Attempt(target.provider, target.model, "rejected", error=error, why=why))

    def verdict(self) -> Exception:
        """Say why the whole walk came to nothing."""
        if self.waits_s:
            return NothingAvailable(self.attempts, min(self.waits_s))
        if len({attempt.error for attempt in self.attempts}) == 1 and self.last_error:
            return self.last_error
        return ChainExhausted(
            f"no target of role {self.role.name!r} takes this prompt: "
            + ", ".join(f"{a.provider}: {a.error}" for a in self.attempts)
        )

    def _call(self, target: Target) -> Completion:
        provider, request = self.registry.provider(target.provider), self._request(target)
        if not getattr(provider, "tells_before_sending", False):
            request.before_sending()
        return provider.complete(request)

    def _request(self, target: Target) -> Request:
        settings = self.registry.settings
        return Request(
            messages=self.call.messages,
            model=target.model,
            system=self.call.system if self.call.system is not None else self.role.system,
            params=settings.params_for(target, self.role, self.call.params),
            timeout_s=min(
                settings.providers[target.provider].timeout.total_s, self.deadline - self.clock()
            ),
            before_sending=partial(self.calls.calling, target.provider, target.model)
            if self.calls
            else lambda: None,
        )

    def _failed(self, target: Target, error: ProviderError, started: float, why: str) -> None:
        self.last_error = error
        if error.verdict.heals:
            self.waits_s.append(error.retry_after_s or 0.0)
        self._add(
            Attempt(
                target.provider, target.model, "failed",
                error=type(error).__name__, status=error.status,
                latency_ms=self._since_ms(started), why=why,
            )
        )  # fmt: skip

    def _add(self, attempt: Attempt, completion: Completion | None = None) -> None:
        self.attempts.append(attempt)
        write_attempt(
            attempt,
            task_id=self.task_id,
            role=self.role.name,
            usage=completion.usage if completion else None,
        )

    def _why_chosen(self, state: str) -> str:
        probe = ", probing whether it has recovered" if state == "half-open" else ""
        if not self.attempts:
            return "first of the chain" + probe
        before = self.attempts[-1]
        return f"after {before.provider}: {before.error}{probe}"

    def _since_ms(self, started: float) -> int:
        return round((self.clock() - started) * 1000)


def _why_refused(refused: BreakerOpen) -> str:
    reason = f" ({refused.reason})" if refused.reason else ""
    return f"{refused.state}{reason}, ask again in {refused.retry_in_s:.1f} s"


def _refused_before(target: Target, earlier: Sequence[dict[str, Any]]) -> str | None:
    """Name the error by which this target refused this very prompt, if it did."""
    for attempt in reversed(earlier):
        if attempt["error"] == RETRIED:  # by hand, after something was mended
            return None
        if (attempt["provider"], attempt["model"]) == (target.provider, target.model):
            kind = getattr(errors, attempt.get("error") or "", None)
            if (
                attempt["outcome"] == "failed"
                and isinstance(kind, type)
                and issubclass(kind, ProviderError)
                and not kind.verdict.heals
            ):
                return kind.__name__
    return None

"""
One trial: a target is admitted, called once, and the attempt is recorded.

All that belongs to one attempt is in its `Trial`: the clock, the first token, the relay of deltas,
the answer that violates its schema. So two trials of one task may run at once, each in its thread.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn, Protocol

from breakwater.attempt import Attempt, Cost, Usage
from breakwater.calls.call import CompletionCall
from breakwater.calls.schema import CompiledSchema
from breakwater.content import Delta
from breakwater.errors import (
    FINISH_REASON,
    DeadlineExceeded,
    HostFault,
    InvalidRequest,
    ProviderError,
    ProviderTimeout,
    UnknownError,
    UnsupportedInput,
)
from tasks.admission.gate import Ask, Estimate, Gate, Outcome, Pass, Refused
from tasks.answering.correction import Violation
from tasks.answering.estimate import estimate
from tasks.answering.refusals import WORDS_AFTER
from tasks.config import ProviderSettings, Role, Target
from tasks.ledger.prices import PriceList
from tasks.providers.base import Completion, Request, calls_hook
from tasks.providers.http.call_limits import abortable_as
from tasks.providers.registry import Registry
from tasks.telemetry import tracing

Clock = Callable[[], float]

CUT_S = 0.05
"""A call that ends so shortly before the deadline was cut by it: timers are not exact."""
EXPLAINED = (UnsupportedInput, InvalidRequest, UnknownError, HostFault)
"""Errors whose message an attempt keeps, because it differs from answer to answer."""


class Recorder(Protocol):
    """Records the attempts of one task."""

    def number(self) -> int:
        """Return the number of the next attempt; a task's are counted from 1."""

    def now_ms(self) -> int:
        """Return the time by which attempts are dated, in ms since 1970."""

    def calling(self, attempt: Attempt) -> None:
        """Record that a call goes out, before its first byte does; if this raises, none does."""

    def record(
        self,
        attempt: Attempt,
        provider: ProviderSettings,
        model: str,
        completion: Completion | None = None,
    ) -> None:
        """Record an attempt that is over, and the model that was requested."""


class Listener(Protocol):
    """Receives an answer while it comes."""

    def delta(self, delta: Delta) -> None:
        """Receive the next piece of the answer."""

    def restart(self, provider: str, error: str) -> None:
        """The answer broke off: discard the pieces received so far."""


@dataclass(frozen=True, slots=True)
class Services:
    """What every walk of one roles file uses."""

    registry: Registry
    gate: Gate
    prices: PriceList
    clock: Clock


@dataclass(slots=True)  # not frozen: that costs a walk 2 µs
class TrialContext:
    """What all trials of one walk share."""

    services: Services
    task_id: str
    call: CompletionCall
    role: Role
    shape: CompiledSchema | None
    """Reads answers by the call's schema; None without one."""
    recorder: Recorder
    deadline: float
    """When the task must be done, on the services' clock."""
    listener: Listener | None
    attempts: list[Attempt] = field(default_factory=list)
    """The attempts that are over, in the order of their ends."""

    def provider(self, target: Target) -> ProviderSettings:
        """Return the settings of a target's provider."""
        return self.services.registry.settings.providers[target.provider]

    def attempt(self, place: int, target: Target, error: str, why: str) -> Attempt:
        """Return the next attempt, numbered and dated; it has failed until a copy says better."""
        return Attempt(
            target.provider, target.model, "failed", error, why=why, place=place,
            number=self.recorder.number(), started_ms=self.recorder.now_ms(),
        )  # fmt: skip

    def reject(self, place: int, target: Target, error: str, why: str) -> None:
        """Record a target that is passed over."""
        attempt = self.attempt(place, target, error, why)
        self.record(target, replace(attempt, outcome="rejected"))

    def record(
        self, target: Target, attempt: Attempt, completion: Completion | None = None
    ) -> None:
        """Record an attempt that is over."""
        self.attempts.append(attempt)
        self.recorder.record(attempt, self.provider(target), target.model, completion)

    def cost(self, attempt: Attempt, usage: Usage, *answered_by: str) -> Cost:
        """Price a call by the model that answered, else by the model that was asked."""
        models = (*answered_by, attempt.model)
        return self.services.prices.cost(attempt.provider, models, usage, attempt.started_ms)


class Trial:
    """
    One attempt at one target.

    Args:
        context: What it shares with the other trials of the walk.
        place: The target's in the chain; the first is 0.
        target: What is called.
        why: Why this target, in words.
        correction: An answer that violates the schema, and that this trial corrects.
    """

    def __init__(
        self,
        context: TrialContext,
        place: int,
        target: Target,
        why: str,
        correction: Violation | None = None,
    ) -> None:
        self.target = target
        self.violation: Violation | None = None
        """The answer of this trial, if it violates the schema."""
        self.admits_all = False
        """After an answer: whether the target's gates admit every call."""
        self._context = context
        self._clock = context.services.clock
        self._place = place
        self._why = why
        self._correction = correction
        self._begun: Attempt | None = None
        self._started = 0.0
        self._first_token_at: float | None = None

    @property
    def has_streamed(self) -> bool:
        """Whether the listener has received a piece of this trial's answer."""
        return self._first_token_at is not None

    @property
    def attempt(self) -> Attempt:
        """The attempt as it is recorded if the worker is lost; only after admission."""
        if self._begun is None:
            raise RuntimeError("a trial has no attempt before its target is admitted")
        return self._begun

    def run(self) -> Completion:
        """
        Admit the target, call it, record the attempt.

        Raises:
            DeadlineExceeded: The deadline passed before the call, or cut it.
            Refused: A gate does not admit the call now; the attempt is recorded.
            ProviderError: The call failed; the attempt is recorded.
        """
        context = self._context
        if self._clock() >= context.deadline:
            raise DeadlineExceeded(
                f"the deadline of the task passed before {self.target.provider!r} could be asked"
            )
        ask = Ask(context.task_id, context.call, context.role, self.target, self._estimate)
        try:
            permit = context.services.gate.admit(ask)
        except Refused as refusal:
            context.reject(self._place, self.target, refusal.error, refusal.why)
            raise
        why = self._why
        if permit.is_probe:
            why += ", probing whether it has recovered"
        begun = context.attempt(self._place, self.target, "WorkerLost", why)
        self._begun = begun
        with tracing.current().calling(context.provider(self.target), begun):
            return self._complete(permit)

    def _estimate(self) -> Estimate:
        """Estimate the call of the request that would go out; for gates that read it."""
        prices, now_ms = self._context.services.prices, self._context.recorder.now_ms()
        return estimate(self._request(), self.target.provider, prices, now_ms)

    def _request(self) -> Request:
        context, call, role = self._context, self._context.call, self._context.role
        timeout = context.provider(self.target).timeout
        messages, system = call.messages, call.system
        if self._correction:
            messages = self._correction.correction(messages)
        if system is None:
            system = role.system
        on_delta = None
        if context.listener:
            on_delta = partial(self._relay, context.listener)
        return Request(
            messages=messages,
            model=self.target.model,
            system=system,
            params=context.services.registry.settings.params_for(self.target, role, call.params),
            timeout_s=min(timeout.total_s, context.deadline - self._clock()),
            schema=call.schema,
            tools=call.tools,
            tool_choice=call.tool_choice,
            on_delta=on_delta,
            first_token_s=timeout.first_token_s,
            between_tokens_s=timeout.between_tokens_s,
            before_sending=self._record_call,
        )

    def _record_call(self) -> None:
        self._context.recorder.calling(self.attempt)

    def _relay(self, listener: Listener, delta: Delta) -> None:
        if self._first_token_at is None:
            self._first_token_at = self._clock()
        listener.delta(delta)

    def _complete(self, permit: Pass) -> Completion:
        self._started = self._clock()
        try:
            completion = self._checked(self._send())
        except ProviderError as error:
            self._fail(permit, error)
        except BaseException as error:
            permit.settle(Outcome(error))
            raise
        self._succeed(permit, completion)
        return completion

    def _send(self) -> Completion:
        context, request = self._context, self._request()
        provider = context.services.registry.provider(self.target.provider)
        if not calls_hook(provider):
            request.before_sending()
        with abortable_as(context.task_id, self.attempt.number):
            return provider.complete(request)

    def _checked(self, completion: Completion) -> Completion:
        """Return the completion with its data, if a schema asks for some."""
        context = self._context
        if context.shape is None or completion.tool_calls:
            return completion
        reading = context.shape.read(completion.text, context.deadline - self._clock())
        if not reading.fault:
            return replace(completion, data=reading.data)
        self.violation = Violation(completion, reading)
        raise self.violation.error(self.target.provider)

    def _succeed(self, permit: Pass, completion: Completion) -> None:
        context = self._context
        cost = context.cost(self.attempt, completion.usage, completion.model)
        self.admits_all = permit.settle(Outcome(None, completion.usage, cost))
        latency_ms, first_token_ms = self._times_ms()
        attempt = replace(
            self.attempt, model=completion.model, outcome="succeeded", error=None,
            latency_ms=latency_ms, first_token_ms=first_token_ms,
            request_id=completion.request_id, usage=completion.usage, cost=cost,
        )  # fmt: skip
        context.record(self.target, attempt, completion)

    def _fail(self, permit: Pass, error: ProviderError) -> NoReturn:
        latency_ms, first_token_ms = self._times_ms()
        attempt = replace(self.attempt, latency_ms=latency_ms, first_token_ms=first_token_ms)
        usage, cost = None, None
        if error.usage:
            answered_by = [self.violation.completion.model] if self.violation else []
            usage = Usage(**error.usage)
            cost = self._context.cost(attempt, usage, *answered_by)
            attempt = replace(attempt, usage=usage, cost=cost)
        if self._was_cut(error):
            permit.settle(Outcome(DeadlineExceeded("cut"), usage, cost))
            raise self._cut(attempt) from None
        permit.settle(Outcome(error, usage, cost))
        attempt = replace(
            attempt, error=type(error).__name__, status=error.status, request_id=error.request_id,
            why=attempt.why + self._detail(error),
        )  # fmt: skip
        if isinstance(error, HostFault):  # nothing was sent, so the provider has not failed
            attempt = replace(attempt, outcome="rejected")
        self._context.record(self.target, attempt)
        raise error

    def _was_cut(self, error: ProviderError) -> bool:
        """Return whether the task's own deadline ended the call, and not its provider."""
        total_s = self._context.provider(self.target).timeout.total_s
        is_shortened = self._context.deadline - self._started < total_s
        is_over = self._clock() >= self._context.deadline - CUT_S
        return isinstance(error, ProviderTimeout) and is_shortened and is_over

    def _cut(self, attempt: Attempt) -> DeadlineExceeded:
        """Record a call that the deadline cut: no breaker counts it, and it may have to be paid."""
        why = f"{attempt.why}{WORDS_AFTER}cut by the deadline of the task"
        cut = replace(attempt, error=DeadlineExceeded.__name__, why=why)
        self._context.record(self.target, cut)
        return DeadlineExceeded(
            f"the deadline of the task cut the call to {self.target.provider!r} "
            f"after {attempt.latency_ms / 1000:.1f} s"
        )

    def _detail(self, error: ProviderError) -> str:
        """Return the words that an attempt keeps of its error, if they may differ each time."""
        if self.violation:
            return f"{WORDS_AFTER}the answer {self.violation.reading.fault}"
        if isinstance(error, EXPLAINED) or FINISH_REASON in error.details:
            return f"{WORDS_AFTER}{error}"
        return ""

    def _times_ms(self) -> tuple[int, int | None]:
        """Return how long the call took, and how long to its first delta; None without one."""
        latency_ms = round((self._clock() - self._started) * 1000)
        if self._first_token_at is None:
            return latency_ms, None
        return latency_ms, round((self._first_token_at - self._started) * 1000)

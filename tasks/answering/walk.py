"""
The walk of a role's chain: the first target that may be asked and answers, serves.

Nothing here waits. When no target can serve now, `NothingAvailable` says how soon one might, and
the task goes back to Redis; a worker never sleeps on a provider's behalf.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from breaker import BreakerOpen
from breakwater.attempt import Attempt, Outcome, Usage
from breakwater.calls.call import Call
from breakwater.calls.schema import shape_of
from breakwater.content import Delta
from breakwater.errors import (
    FINISH_REASON,
    BreakwaterError,
    ChainExhausted,
    DeadlineExceeded,
    HostFault,
    InvalidRequest,
    ProviderError,
    ProviderTimeout,
    UnknownError,
    UnsupportedInput,
)
from tasks.admission.passes import Pass
from tasks.answering.correction import Violation
from tasks.answering.refusals import WORDS_AFTER, refused_before
from tasks.config import ProviderSettings, Role, Target
from tasks.providers.base import Completion, Request
from tasks.providers.registry import Registry
from tasks.telemetry import tracing

Clock = Callable[[], float]

CUT_S = 0.05
"""A call that ends so shortly before the deadline was cut by it: timers are not exact."""
EXPLAINED = (UnsupportedInput, InvalidRequest, UnknownError, HostFault)
"""Errors whose words an attempt keeps, since they differ from answer to answer."""


class Recorder(Protocol):
    """Records the attempts of one task."""

    def number(self) -> int:
        """Return the number of the next attempt; a task's are counted from 1."""

    def now_ms(self) -> int:
        """Return the time by which attempts are dated, in ms since 1970."""

    def calling(self, attempt: Attempt) -> None:
        """Note that a call goes out, before its first byte does; if this raises, none does."""

    def add(self, attempt: Attempt) -> None:
        """Note an attempt that is over."""


class Listener(Protocol):
    """Who hears an answer while it comes."""

    has_begun: bool
    """Whether anything was heard of the answer that runs."""

    def delta(self, delta: Delta) -> None:
        """Hear the next piece of it."""

    def restart(self, provider: str, error: str) -> None:
        """Hear that it broke off: what was heard of it is void."""


@dataclass(frozen=True, slots=True)
class ChainAnswer:
    """A completion, who gave it, and what was tried before."""

    completion: Completion
    target: Target
    attempts: list[Attempt]
    closed: bool
    """The target's breaker is closed, and it is not held back: others may come as they like."""


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
    recorder: Recorder,
    deadline: float,
    earlier: Sequence[dict[str, Any]] = (),
    listener: Listener | None = None,
    clock: Clock = time.monotonic,
) -> ChainAnswer:
    """
    Ask the role's targets in order until one answers.

    Args:
        recorder: Told of every attempt.
        deadline: When the task must be done, on `clock`.
        earlier: Attempts of earlier walks for this task, as in the result; a target that refused
            this very prompt is not asked again.
        listener: Hears the answer while it comes; None: nobody does, and it is not streamed.

    Raises:
        NothingAvailable: Every target is down or held back; try again later.
        ProviderError: Every target refused the prompt, or the call was cancelled.
        ChainExhausted: Every target refused this prompt, each for a reason of its own.
        DeadlineExceeded: The deadline passed on the way, or cut a call.
    """
    walk = _Walk(call, role, registry, recorder, deadline, clock, listener)
    try:
        for place, target in enumerate(role.chain):
            if refusal := refused_before(target, earlier):
                walk.refused(place, target, refusal)
            elif lack := walk.lack(target):
                walk.lacking(place, target, lack)
            elif completion := walk.ask(place, target):
                return ChainAnswer(completion, target, walk.attempts, walk.closed)
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
        recorder: Recorder,
        deadline: float,
        clock: Clock,
        listener: Listener | None,
    ) -> None:
        self.call = call
        self.role = role
        self.registry = registry
        self.recorder = recorder
        self.deadline = deadline
        self.clock = clock
        self.listener = listener
        self.first_token_at: float | None = None
        self.attempts: list[Attempt] = []
        self.waits_s: list[float] = []
        self.refusals: list[ProviderError] = []
        self.closed = False
        self.media = call.media
        self.shape = None if call.schema is None else shape_of(call.schema)
        self.violation: Violation | None = None

    def lack(self, target: Target) -> str:
        """Say which of the prompt's media the target cannot take; nothing if it takes all."""
        missing = sorted(self.media - self._provider(target).media)
        return f"takes no {' and no '.join(missing)}; see inputs in the roles file" * bool(missing)

    def ask(self, place: int, target: Target) -> Completion | None:
        """Ask, once more after an answer that can be mended; None to go on to the next target."""
        completion = self._try(place, target, None)
        if self.violation and self.violation.can_be_mended:
            completion = self._try(place, target, self.violation)
        return completion

    def _try(self, place: int, target: Target, mending: Violation | None) -> Completion | None:
        """Admit, call, record. Return the completion, or None if it came to nothing."""
        self.violation = None
        if self.clock() >= self.deadline:
            raise DeadlineExceeded(
                f"the deadline of the task passed before {target.provider!r} could be asked"
            )
        try:
            pass_ = self.registry.admit(target)
        except BreakerOpen as refused:
            self.waits_s.append(refused.retry_in_s)
            self.reject(place, target, "BreakerOpen", _why_refused(refused, target))
            return None
        begun = self._attempt(place, target, "WorkerLost", self._why_chosen(pass_.state, mending))
        with tracing.now().calling(self._provider(target), begun):
            return self._ask(target, pass_, begun, mending)

    def _ask(
        self,
        target: Target,
        pass_: Pass,
        begun: Attempt,
        mending: Violation | None,
    ) -> Completion | None:
        started = self.clock()
        self.first_token_at = None
        try:
            completion = self._judged(target, self._call(target, begun, mending))
        except ProviderError as error:
            if self._was_cut(target, started, error):
                pass_.settle(DeadlineExceeded("cut"))
                raise self._cut(target, replace(begun, **self._times(started)), error) from None
            pass_.settle(error)
            self._failed(target, replace(begun, **self._times(started)), error)
            if not error.verdict.next_target or not self._may_go_on(target, error):
                raise
            return None
        except BaseException as error:
            pass_.settle(error)
            raise
        self.closed = pass_.settle(None)
        self._add(
            target,
            replace(
                begun, model=completion.model, outcome="succeeded", error=None,
                request_id=completion.request_id, **self._times(started),
                **self._spent(begun, completion.usage, completion.model),
            ),
            completion,
        )  # fmt: skip
        return completion

    def reject(self, place: int, target: Target, error: str, why: str) -> None:
        """Note a target that was passed over."""
        self._add(target, replace(self._attempt(place, target, error, why), outcome="rejected"))

    def refused(self, place: int, target: Target, error: ProviderError) -> None:
        """Pass over a target that refused this very prompt in an earlier walk."""
        kind = type(error).__name__
        self.refusals.append(error)
        why = f"refused this prompt before: {kind}{WORDS_AFTER}{error}"
        self.reject(place, target, kind, why)

    def lacking(self, place: int, target: Target, lack: str) -> None:
        """Pass over a target that cannot take what the prompt holds."""
        self.refusals.append(UnsupportedInput(f"{target.provider}: {lack}"))
        self.reject(place, target, UnsupportedInput.__name__, lack)

    def verdict(self) -> Exception:
        """Say why the whole walk came to nothing."""
        if self.waits_s:
            return NothingAvailable(self.attempts, min(self.waits_s))
        kinds = {type(error) for error in self.refusals}
        if kinds == {UnsupportedInput}:
            return UnsupportedInput(
                f"no target of role {self.role.name!r} can take this prompt: "
                + ", ".join(f"{a.provider}: {a.why}" for a in self.attempts)
            )
        if len(kinds) == 1 or InvalidRequest in kinds:
            return self.refusals[0]
        refusals = dict.fromkeys(f"{a.provider}: {a.error}" for a in self.attempts)
        return ChainExhausted(
            f"no target of role {self.role.name!r} takes this prompt: {', '.join(refusals)}"
        )

    def _was_cut(self, target: Target, started: float, error: ProviderError) -> bool:
        """Tell whether it was the task's own deadline that ended a call, not its provider."""
        shortened = self.deadline - started < self._provider(target).timeout.total_s
        is_over = self.clock() >= self.deadline - CUT_S
        return isinstance(error, ProviderTimeout) and shortened and is_over

    def _cut(self, target: Target, begun: Attempt, error: ProviderError) -> DeadlineExceeded:
        """Note a call that the deadline cut; nobody's fault, and it may have been paid."""
        why = f"{begun.why}{WORDS_AFTER}cut by the deadline of the task"
        usage = Usage(**error.usage) if error.usage else None
        spent = self._spent(begun, usage) if usage else {}
        self._add(target, replace(begun, error=DeadlineExceeded.__name__, why=why, **spent))
        return DeadlineExceeded(
            f"the deadline of the task cut the call to {target.provider!r} "
            f"after {begun.latency_ms / 1000:.1f} s"
        )

    def _attempt(self, place: int, target: Target, error: str, why: str) -> Attempt:
        return Attempt(
            target.provider, target.model, "failed", error, why=why,
            number=self.recorder.number(), place=place, started_ms=self.recorder.now_ms(),
        )  # fmt: skip

    def _call(self, target: Target, begun: Attempt, mending: Violation | None) -> Completion:
        provider = self.registry.provider(target.provider)
        request = self._request(target, begun)
        if mending:
            request = replace(request, messages=mending.correction(request.messages))
        if not getattr(provider, "calls_before_sending_hook", False):
            request.before_sending()
        return provider.complete(request)

    def _judged(self, target: Target, completion: Completion) -> Completion:
        """Return the completion with its data, if a schema asks for some."""
        if self.shape is None or completion.tool_calls:
            return completion
        reading = self.shape.read(completion.text, self.deadline - self.clock())
        if not reading.fault:
            return replace(completion, data=reading.data)
        self.violation = Violation(completion, reading)
        raise self.violation.error(target.provider)

    def _request(self, target: Target, begun: Attempt) -> Request:
        settings = self.registry.settings
        timeout = self._provider(target).timeout
        return Request(
            messages=self.call.messages,
            model=target.model,
            system=self.call.system if self.call.system is not None else self.role.system,
            params=settings.params_for(target, self.role, self.call.params),
            timeout_s=min(timeout.total_s, self.deadline - self.clock()),
            schema=self.call.schema,
            tools=self.call.tools,
            tool_choice=self.call.tool_choice,
            on_delta=self._hear if self.listener else None,
            first_token_s=timeout.first_token_s,
            between_tokens_s=timeout.between_tokens_s,
            before_sending=partial(self.recorder.calling, begun),
        )

    def _hear(self, delta: Delta) -> None:
        if self.first_token_at is None:
            self.first_token_at = self.clock()
        if self.listener:
            self.listener.delta(delta)

    def _may_go_on(self, target: Target, error: ProviderError) -> bool:
        """Take back what was heard of an answer that broke off, if the role allows it."""
        if not self.listener or not self.listener.has_begun:
            return True
        if self.role.stream_restart:
            self.listener.restart(target.provider, type(error).__name__)
        return self.role.stream_restart

    def _failed(self, target: Target, begun: Attempt, error: ProviderError) -> None:
        if error.verdict.retryable_later:
            self.waits_s.append(error.retry_after_s or 0.0)
        else:
            self.refusals.append(error)
        # Nothing went out, so it is no failure of the provider's.
        outcome: Outcome = "rejected" if isinstance(error, HostFault) else "failed"
        answered_by = [self.violation.completion.model] if self.violation else []
        usage = Usage(**error.usage) if error.usage else None
        self._add(
            target,
            replace(
                begun, outcome=outcome, error=type(error).__name__, status=error.status,
                request_id=error.request_id, why=begun.why + self._detail(error),
                **(self._spent(begun, usage, *answered_by) if usage else {}),
            ),
        )  # fmt: skip

    def _detail(self, error: ProviderError) -> str:
        """Say more of an error that may differ from answer to answer."""
        if self.violation:
            return f"{WORDS_AFTER}the answer {self.violation.reading.fault}"
        is_explained = isinstance(error, EXPLAINED) or FINISH_REASON in error.details
        return f"{WORDS_AFTER}{error}" if is_explained else ""

    def _spent(self, begun: Attempt, usage: Usage, *models: str) -> dict[str, Any]:
        prices = self.registry.prices
        cost = prices.cost(begun.provider, (*models, begun.model), usage, begun.started_ms)
        return {"usage": usage, "cost": cost}

    def _add(self, target: Target, attempt: Attempt, completion: Completion | None = None) -> None:
        self.attempts.append(attempt)
        self.recorder.add(attempt)
        tracing.now().tell(self._provider(target), target.model, attempt, completion)

    def _provider(self, target: Target) -> ProviderSettings:
        return self.registry.settings.providers[target.provider]

    def _why_chosen(self, state: str, mending: Violation | None) -> str:
        probe = ", probing whether it has recovered" if state == "half-open" else ""
        if mending:
            return f"asked again, with what is wrong with its answer{probe}"
        if not self.attempts:
            return "first of the chain" + probe
        before = self.attempts[-1]
        return f"after {before.provider}: {before.error}{probe}"

    def _times(self, started: float) -> dict[str, Any]:
        first_token_ms = None
        if self.first_token_at is not None:
            first_token_ms = round((self.first_token_at - started) * 1000)
        latency_ms = round((self.clock() - started) * 1000)
        return {"latency_ms": latency_ms, "first_token_ms": first_token_ms}


def _why_refused(refused: BreakerOpen, target: Target) -> str:
    which = "" if refused.name == target.provider else f"its model {target.model} is "
    if refused.reason == "forced":
        return f"{which}forced open by an operator"
    reason = f" ({refused.reason})" if refused.reason else ""
    return f"{which}{refused.state}{reason}, ask again in {refused.retry_in_s:.1f} s"

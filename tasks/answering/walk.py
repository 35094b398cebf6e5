"""
The walk of a role's chain: the first target that is admitted and answers, serves.

Nothing here waits. If no target can serve now, `NothingAvailable` carries the seconds until one
may, and the task goes back to Redis; a worker never sleeps on a provider's behalf.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from breakwater.attempt import Attempt, attempts_as_json
from breakwater.calls.call import CompletionCall
from breakwater.calls.schema import compile_schema
from breakwater.errors import (
    BreakwaterError,
    ChainExhausted,
    HostFault,
    InvalidRequest,
    ProviderError,
    UnsupportedInput,
)
from breakwater.result import Answer
from tasks.admission.gate import Gate, Refused
from tasks.answering.refusals import WORDS_AFTER, refused_before
from tasks.answering.trial import Clock, Listener, Recorder, Services, Trial, TrialContext
from tasks.config import Role, Target
from tasks.ledger.prices import PriceList
from tasks.providers.base import Completion
from tasks.providers.registry import Registry

CORRECTION = "asked again, with what is wrong with its answer"


@dataclass(frozen=True, slots=True)
class ChainAnswer:
    """A completion, the target that gave it, and the attempts of the walk."""

    completion: Completion
    target: Target
    attempts: list[Attempt]
    admits_all: bool
    """The target's gates admit every call now: a parked queue may be opened."""

    def answer(self, task_id: str) -> Answer:
        """Return the part of the result that comes from the provider."""
        completion = self.completion
        return Answer(
            task_id=task_id,
            provider=self.target.provider,
            model=completion.model,
            text=completion.text,
            data=completion.data,
            tool_calls=completion.tool_calls,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
        )


class NothingAvailable(Exception):  # noqa: N818 - not a failure: the task waits
    """
    No target can serve now, but one may later.

    Args:
        attempts: The targets that this walk tried or passed over.
        wait_s: Seconds until the earliest target may be asked again, as the gates have it.
    """

    def __init__(self, attempts: list[Attempt], wait_s: float) -> None:
        super().__init__(attempts, wait_s)
        self.attempts = attempts
        self.wait_s = wait_s


class ChainWalker:
    """
    Walks the chains of one roles file.

    Args:
        registry: Has the providers.
        gate: Admits calls.
        prices: Price what a call has used.
        clock: Seconds, never stepping back.
    """

    def __init__(
        self, registry: Registry, gate: Gate, prices: PriceList, clock: Clock = time.monotonic
    ) -> None:
        self._services = Services(registry, gate, prices, clock)

    def walk(
        self,
        call: CompletionCall,
        role: Role,
        *,
        task_id: str,
        recorder: Recorder,
        deadline: float,
        earlier: Sequence[Attempt] = (),
        listener: Listener | None = None,
    ) -> ChainAnswer:
        """
        Ask the role's targets in order until one answers.

        Args:
            call: The prompt and its options.
            role: Its chain is walked.
            task_id: The task's.
            recorder: Records every attempt.
            deadline: When the task must be done, on the walker's clock.
            earlier: Attempts of earlier walks for this task; a target that
                refused this very prompt is not asked again.
            listener: Receives the answer while it comes; None: the answer is not streamed.

        Raises:
            NothingAvailable: Every target is down or held back; try again later.
            ProviderError: Every target refused the prompt, or the call was cancelled.
            ChainExhausted: Every target refused this prompt, each for another reason.
            DeadlineExceeded: The deadline passed during the walk, or cut a call.
        """
        shape = None if call.schema is None else compile_schema(call.schema)
        context = TrialContext(
            self._services, task_id, call, role, shape, recorder, deadline, listener
        )
        try:
            return _Walk(context).run(earlier)
        except BreakwaterError as error:
            error.details["attempts"] = attempts_as_json([*earlier, *context.attempts])
            raise

    def available_target(self, role: Role) -> Target | None:
        """
        Choose the target that a role would ask now.

        A look, not an admission: it takes no probe's slot, and the next look may differ.

        Returns:
            The first target of the chain that is admitted and can be built on this host.
        """
        for target in role.chain:
            if self._services.gate.opens_in_s(target):
                continue
            try:
                self._services.registry.provider(target.provider)
            except HostFault:
                continue
            return target
        return None


class _Walk:
    """One walk of a chain, and what its targets have shown so far."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._role = context.role
        self._waits_s: list[float] = []
        self._refusals: list[ProviderError] = []

    def run(self, earlier: Sequence[Attempt]) -> ChainAnswer:
        for place, target in enumerate(self._role.chain):
            if self._passes_over(place, target, earlier):
                continue
            if answer := self._ask(place, target):
                return answer
        raise self._verdict()

    def _passes_over(self, place: int, target: Target, earlier: Sequence[Attempt]) -> bool:
        """Return whether a target is not worth asking; record it then."""
        if refusal := refused_before(target, earlier):
            kind = type(refusal).__name__
            why = f"refused this prompt before: {kind}{WORDS_AFTER}{refusal}"
        elif lack := self._missing_media(target):
            refusal = UnsupportedInput(f"{target.provider}: {lack}")
            kind, why = UnsupportedInput.__name__, lack
        else:
            return False
        self._refusals.append(refusal)
        self._context.reject(place, target, kind, why)
        return True

    def _missing_media(self, target: Target) -> str:
        """Name the prompt's media that a target cannot take; empty if it takes all."""
        missing = sorted(self._context.call.media - self._context.provider(target).media)
        if not missing:
            return ""
        return f"takes no {' and no '.join(missing)}; see inputs in the roles file"

    def _ask(self, place: int, target: Target) -> ChainAnswer | None:
        """Ask, once more if the answer can be corrected; None: go on to the next target."""
        trial = Trial(self._context, place, target, self._why_chosen())
        completion = self._try(trial)
        violation = trial.violation
        if violation and violation.can_be_corrected:
            trial = Trial(self._context, place, target, CORRECTION, violation)
            completion = self._try(trial)
        if completion is None:
            return None
        return ChainAnswer(completion, target, self._context.attempts, trial.admits_all)

    def _try(self, trial: Trial) -> Completion | None:
        """Run a trial; None: go on."""
        try:
            return trial.run()
        except Refused as refusal:
            self._waits_s.append(refusal.retry_in_s)
        except ProviderError as error:
            if error.verdict.retryable_later:
                self._waits_s.append(error.retry_after_s or 0.0)
            else:
                self._refusals.append(error)
            if not error.verdict.next_target or not self._retracts(trial, error):
                raise
        return None

    def _retracts(self, trial: Trial, error: ProviderError) -> bool:
        """Retract the part of an answer that was streamed; False: the role does not allow it."""
        listener = self._context.listener
        if listener is None or not trial.has_streamed:
            return True
        if self._role.stream_restart:
            listener.restart(trial.target.provider, type(error).__name__)
        return self._role.stream_restart

    def _why_chosen(self) -> str:
        if not self._context.attempts:
            return "first of the chain"
        before = self._context.attempts[-1]
        return f"after {before.provider}: {before.error}"

    def _verdict(self) -> Exception:
        """Return why the whole walk has no answer."""
        attempts, refusals = self._context.attempts, self._refusals
        if self._waits_s:
            return NothingAvailable(attempts, min(self._waits_s))
        kinds = {type(error) for error in refusals}
        if kinds == {UnsupportedInput}:
            return UnsupportedInput(
                f"no target of role {self._role.name!r} can take this prompt: "
                + ", ".join(f"{attempt.provider}: {attempt.why}" for attempt in attempts)
            )
        if len(kinds) == 1 or InvalidRequest in kinds:
            return refusals[0]
        reasons = dict.fromkeys(f"{attempt.provider}: {attempt.error}" for attempt in attempts)
        return ChainExhausted(
            f"no target of role {self._role.name!r} takes this prompt: {', '.join(reasons)}"
        )

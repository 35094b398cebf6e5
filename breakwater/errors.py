"""
Every error a caller or a worker can meet, and what each means for the chain.

    BreakwaterError
    ├── ConfigError              roles.yaml or the environment is at fault; lists every fault
    ├── BadTask                  refused before any provider is asked
    │   ├── UnknownRole
    │   ├── InvalidPrompt
    │   ├── InvalidOption
    │   ├── InvalidMessage       not one that Celery's producers write
    │   ├── UnknownTask
    │   ├── BadCalls             some of many that were to be queued in one go; lists every one
    │   ├── UnknownWorkflow
    │   └── InvalidWorkflow      lists every fault
    ├── ProviderError            one call to one target failed; the verdict says what follows
    │   ├── Overloaded           503, 529
    │   ├── ServerError          any other 5xx
    │   ├── ProviderTimeout      connecting, or the whole call, took too long; 408, 504
    │   ├── ConnectionFailed     refused, reset, no such host, TLS
    │   ├── GarbledAnswer        not JSON, the wrong shape, or empty
    │   ├── TruncatedAnswer      the answer ended before its end
    │   ├── UnfinishedAnswer     it ended with a word that does not mean a whole answer
    │   ├── RateLimited          429
    │   ├── QuotaExhausted       402, or a 429 that names a spent quota
    │   ├── AuthenticationFailed 401; a 403 or 400 that names the key or the account
    │   ├── ModelNotFound        404, or a 4xx that names the model: the pair is held
    │   ├── ContextWindowExceeded
    │   ├── ContentFiltered
    │   ├── SchemaViolated       the answer is not what the schema asks for, also when asked again
    │   ├── UnsupportedInput     this target cannot do what was asked: media, tools, parameters
    │   ├── InvalidRequest       a 4xx that names nothing better
    │   ├── UnknownError         an error that names nothing known, or a firewall's 403
    │   ├── HostFault            a proxy, a certificate, a missing package of this host
    │   └── Cancelled            time limit, revoke, shutdown: nobody's fault
    ├── WorkerLost               it cost several workers their lives; it is not given to another
    ├── QueueUnavailable         Redis did not take a task; it says why, and where
    ├── UnknownRun               of a workflow
    ├── LoopExhausted            a workflow's loop was used up, and was to fail then
    ├── ResultTooLarge           the answer is larger than Redis should keep
    ├── ChainExhausted           every target was tried, and none of their errors can heal
    └── DeadlineExceeded         the task's deadline passed before any target answered

The verdict (DESIGN: "Errors and their verdicts") is data on the class, so that routing reads
it and nobody else decides. `args` is always `(message, details)` with `details` a JSON object:
Celery's JSON result backend rebuilds an exception from its class and `args`, so a typed error
with its attempts arrives at `.get()`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from breakwater.attempt import AttemptJson, UsageJson


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a provider's error means for its breaker and for the chain."""

    trips: bool
    """The provider's fault: a failure to its breaker."""
    trips_at_once: bool
    """One is proof: the breaker opens without waiting for a run of them."""
    next_target: bool
    """The next target of the chain may do better."""
    retryable_later: bool
    """Asking the same target again later may do better."""
    holds_model: bool = False
    """The pair of provider and model is held, by a breaker of its own; the provider is not."""

    @property
    def heals(self) -> bool:
        """`retryable_later`, by its name of version 0.1."""
        return self.retryable_later


_UNHEALTHY = Verdict(trips=True, trips_at_once=False, next_target=True, retryable_later=True)
_PROOF = Verdict(trips=True, trips_at_once=True, next_target=True, retryable_later=True)
_HELD_BACK = Verdict(trips=False, trips_at_once=False, next_target=True, retryable_later=True)
_PROMPT_HERE = Verdict(trips=False, trips_at_once=False, next_target=True, retryable_later=False)
_MODEL = Verdict(
    trips=False, trips_at_once=False, next_target=True, retryable_later=True, holds_model=True
)
_UNKNOWN = Verdict(trips=False, trips_at_once=False, next_target=True, retryable_later=True)
_NOBODY = Verdict(trips=False, trips_at_once=False, next_target=False, retryable_later=True)


class BreakwaterError(Exception):
    """
    The root of the tree.

    Args:
        message: What happened, the value, what was allowed, the next step; never a key or a prompt.
        details: A JSON object for programs; survives the way through the result backend.
    """

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message, details or {})

    def __str__(self) -> str:
        """Show the message alone."""
        return str(self.args[0])

    @property
    def details(self) -> dict[str, Any]:
        """The JSON object for programs."""
        return self.args[1] if len(self.args) > 1 else {}

    @property
    def attempts(self) -> list["AttemptJson"]:
        """The attempts made for the task before it failed, as in its result."""
        attempts: list[AttemptJson] = self.details.get("attempts", [])
        return attempts


class ConfigError(BreakwaterError):
    """The roles file or the environment cannot be used; the message lists every fault."""


_MAX_TOLD = 10  # calls at fault that a message tells of; the rest are counted, the details have all


class BadTask(BreakwaterError):
    """The task is refused before any provider is asked."""


class UnknownRole(BadTask):
    """No such role in the roles file."""

    @classmethod
    def named(cls, role: str, known: Iterable[str], source: str) -> "UnknownRole":
        """Build the error that names the nearest known role."""
        known = sorted(known)
        return cls(
            f"unknown role {role[:80]!r}; {source} has {', '.join(known)}{nearest(role, known)}",
            {"role": role[:80], "known": known},
        )


class InvalidPrompt(BadTask):
    """The prompt is empty, of the wrong shape, or cannot be written as JSON."""


class InvalidOption(BadTask):
    """An option does not exist, or its value is of the wrong type or range."""


class BadCalls(BadTask):
    """Some of many calls are at fault, and none was queued; `details["faults"]` tells of each."""

    @classmethod
    def of(cls, faults: list[dict[str, Any]], number: int) -> "BadCalls":
        """
        Build it.

        Args:
            faults: Each with the `index` of its call, the name of the `error`, and its `message`.
            number: Of all calls.
        """
        told = [f"call {each['index']}: {each['message']}" for each in faults[:_MAX_TOLD]]
        more = [f"and {len(faults) - _MAX_TOLD} more"] if len(faults) > _MAX_TOLD else []
        return cls(
            f"{len(faults)} of {number} calls cannot be queued, so none was: "
            f"{'; '.join([*told, *more])}",
            {"faults": faults},
        )


class InvalidMessage(BadTask):
    """A message in a queue is not what Celery's producers write; it says what does not fit."""


class UnknownTask(BadTask):
    """A message names a task that the workers do not have."""


class InvalidWorkflow(BadTask):
    """A workflow's definition has faults; the message lists every one."""


class UnknownWorkflow(BadTask):
    """No such workflow in the roles file."""


class QueueUnavailable(BreakwaterError, OperationalError):
    """
    Redis did not take a task; `details` has the `task_id` it would have had.

    It may be enqueued again under the same `task_id`, which is never paid for twice, should the
    first have arrived and only its acknowledgement been lost.
    """


class UnknownRun(BreakwaterError):
    """No such run of a workflow, or it was too long ago."""


class LoopExhausted(BreakwaterError):
    """A workflow's loop was used up, what it waited for was never so, and it was to fail then."""


FINISH_REASON = "finish_reason"
"""Key in the details of an error: the word with which the provider ended an answer of no use."""


class ProviderError(BreakwaterError):
    """
    One call to one target failed.

    Args:
        message: Vendor's words only where they cannot repeat the prompt or the key.
        status: The HTTP status, None where there was none.
        request_id: The vendor's id of the request, None where it gave none.
        retry_after_s: How long the vendor asks to be left alone, in seconds; None if it did not.
        usage: Tokens of an answer that is of no use but has to be paid; None if none is known.
    """

    verdict: ClassVar[Verdict] = _UNHEALTHY

    def __init__(
        self,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        usage: "UsageJson | None" = None,
    ) -> None:
        given = {
            "status": status, "request_id": request_id,
            "retry_after_s": retry_after_s, "usage": usage,
        }  # fmt: skip
        super().__init__(
            message, {**(details or {}), **{k: v for k, v in given.items() if v is not None}}
        )

    @property
    def status(self) -> int | None:
        """The HTTP status, None where there was none."""
        return self.details.get("status")

    @property
    def request_id(self) -> str | None:
        """The vendor's id of the request, None where it gave none."""
        return self.details.get("request_id")

    @property
    def retry_after_s(self) -> float | None:
        """How long the vendor asks to be left alone, in seconds; None if it did not ask."""
        return self.details.get("retry_after_s")

    @property
    def usage(self) -> "UsageJson | None":
        """Tokens of an answer that is of no use, by kind; None if unknown, all or one kind."""
        return self.details.get("usage")


class Overloaded(ProviderError):
    """The provider says it is overloaded (503, 529)."""


class ServerError(ProviderError):
    """The provider failed (any other 5xx)."""


class ProviderTimeout(ProviderError):
    """Connecting, or the whole call, took longer than the provider's timeout."""


class ConnectionFailed(ProviderError):
    """The connection could not be made, or broke."""


class GarbledAnswer(ProviderError):
    """The answer is not JSON, has the wrong shape, or is empty."""


class TruncatedAnswer(ProviderError):
    """The answer ended before its end."""


class UnfinishedAnswer(ProviderError):
    """
    The provider ended the answer with a word that is not known, or that says it goes on.

    Nobody can tell whether the text is whole, so it is no answer. It is not a failure of the
    provider's health either, and asking the same target again would be paid again.
    """

    verdict = _PROMPT_HERE


class RateLimited(ProviderError):
    """The provider asks us to slow down (429); it is held back, its breaker does not trip."""

    verdict = _HELD_BACK


class QuotaExhausted(ProviderError):
    """The account has no money or no quota left."""

    verdict = _PROOF


class AuthenticationFailed(ProviderError):
    """The key is wrong, expired, or may not do this."""

    verdict = _PROOF


class ModelNotFound(ProviderError):
    """
    The provider does not know the model, or this account may not use it.

    It says nothing against the provider's other models, so only this one is held.
    """

    verdict = _MODEL


class ContextWindowExceeded(ProviderError):
    """The prompt is longer than this model's window; a larger one may take it."""

    verdict = _PROMPT_HERE


class ContentFiltered(ProviderError):
    """The provider refuses the prompt or the answer; another may not."""

    verdict = _PROMPT_HERE


class SchemaViolated(ProviderError):
    """The answer does not satisfy the task's schema; another target's may."""

    verdict = _PROMPT_HERE


class UnsupportedInput(ProviderError):
    """The target cannot do what was asked: an image, tools, a schema, a parameter, the size."""

    verdict = _PROMPT_HERE


class InvalidRequest(ProviderError):
    """
    The provider refuses the request with a 4xx that names nothing better.

    Another target may take it. When every target has refused the prompt, the task fails.
    """

    verdict = _PROMPT_HERE


class UnknownError(ProviderError):
    """
    The provider reports an error that names nothing known.

    Nobody can tell whose fault it is: no breaker counts it, and the prompt may be sent again.
    """

    verdict = _UNKNOWN


class HostFault(ProviderError):
    """
    This host cannot call the provider: a proxy, a certificate, a missing package.

    The next target is asked, and no breaker of the fleet counts it. The message names the setting.
    """

    verdict = _UNKNOWN


class Cancelled(ProviderError):
    """The call was ended from our side: time limit, revoke, shutdown."""

    verdict = _NOBODY


class WorkerLost(BreakwaterError):
    """Worker after worker was lost while it ran this task; another would be, too."""


class ResultTooLarge(BreakwaterError):
    """The answer, which was paid for, is larger than what Redis is given to keep."""


class ChainExhausted(BreakwaterError):
    """Every target was tried, and no error among theirs can heal by waiting."""


class DeadlineExceeded(BreakwaterError):
    """The task's deadline passed before any target answered."""


_LONGEST = 80  # characters of a word that are compared; a whole prompt would take seconds


def nearest(word: str, known: Iterable[str]) -> str:
    """Say `" (did you mean 'x'?)"` if a known word is near, else nothing."""
    close = get_close_matches(word[:_LONGEST], list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""

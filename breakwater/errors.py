"""
All errors of callers and workers, and what each means for the chain.

    BreakwaterError
    ├── ConfigError              the roles file or the environment is at fault; lists every fault
    ├── BadTask                  refused before any provider is called
    │   ├── UnknownRole
    │   ├── InvalidPrompt
    │   ├── InvalidOption
    │   ├── InvalidMessage       not in the format of Celery's producers
    │   ├── UnknownTask
    │   ├── BadCalls             some calls of `delay_many`; lists each of them
    │   ├── UnknownWorkflow
    │   └── InvalidWorkflow      lists every fault
    ├── ProviderError            one call to one target failed; the verdict decides what follows
    │   ├── Overloaded           503, 529
    │   ├── ServerError          any other 5xx
    │   ├── ProviderTimeout      connecting, or the whole call, took too long; 408, 504
    │   ├── ConnectionFailed     refused, reset, no such host, TLS
    │   ├── GarbledAnswer        not JSON, the wrong shape, or empty
    │   ├── TruncatedAnswer      the connection ended before the answer was complete
    │   ├── UnfinishedAnswer     its finish reason does not mean a complete answer
    │   ├── RateLimited          429
    │   ├── QuotaExhausted       402, or a 429 that names a spent quota
    │   ├── AuthenticationFailed 401; a 403 or 400 that names the key or the account
    │   ├── ModelNotFound        404, or a 4xx that names the model: provider and model are held
    │   ├── ContextWindowExceeded
    │   ├── ContentFiltered
    │   ├── SchemaViolated       the answer does not satisfy the schema, even after a correction
    │   ├── UnsupportedInput     the target does not support media, tools or parameters of the call
    │   ├── InvalidRequest       a 4xx without a better class
    │   ├── UnknownError         an unknown error, or a firewall's 403
    │   ├── HostFault            a proxy, a certificate or a missing package of this host
    │   └── Cancelled            time limit, revocation or shutdown; not the provider's fault
    ├── WorkerLost               several workers died while they ran the task
    ├── QueueUnavailable         Redis did not accept a task; the message says why
    ├── UnknownRun               no workflow run of this id
    ├── LoopExhausted            a workflow's loop reached its limit, and `or_fail` is set
    ├── ResultTooLarge           the result is larger than Redis should store
    ├── ChainExhausted           every target failed, and none may succeed later
    └── DeadlineExceeded         no target answered before the task's deadline

The verdict is data on the class, so that breakers and the chain follow the same rule. `args` is
always `(message, details)`, and `details` is a JSON object. Celery's JSON result backend rebuilds
an exception from its class and `args`, so `.get()` raises the typed error with its attempts.
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
    """The effect of a provider's error on its breaker and on the chain."""

    trips: bool
    """Its breaker counts a failure."""
    trips_at_once: bool
    """One such error opens the breaker."""
    next_target: bool
    """The next target of the chain may succeed."""
    retryable_later: bool
    """The same target may succeed later."""
    holds_model: bool = False
    """A separate breaker holds this pair of provider and model, but not the whole provider."""

    @property
    def heals(self) -> bool:
        """The name of `retryable_later` in version 0.1."""
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
    The base class of all errors.

    Args:
        message: What happened, the value, what is allowed, the next step; never a key or a prompt.
        details: A JSON object for programs; the result backend preserves it.
    """

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message, details or {})

    def __str__(self) -> str:
        """Return only the message."""
        return str(self.args[0])

    @property
    def details(self) -> dict[str, Any]:
        """The JSON object for programs."""
        if len(self.args) < 2:
            return {}
        details: dict[str, Any] = self.args[1]
        return details

    @property
    def attempts(self) -> list["AttemptJson"]:
        """The attempts made for the task before it failed, as in its result."""
        attempts: list[AttemptJson] = self.details.get("attempts", [])
        return attempts


class ConfigError(BreakwaterError):
    """The roles file or the environment cannot be used; the message lists every fault."""


_MAX_NAMED = 10  # calls that a message lists; it counts the rest, and the details have all


class BadTask(BreakwaterError):
    """The task is refused before any provider is called."""


class UnknownRole(BadTask):
    """The role does not exist in the roles file."""

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
    """Some of many calls are at fault, and none was queued; `details["faults"]` lists each."""

    @classmethod
    def of(cls, faults: list[dict[str, Any]], number: int) -> "BadCalls":
        """
        Build the error.

        Args:
            faults: Each has the `index` of its call, the name of the `error`, and its `message`.
            number: The number of all calls.
        """
        lines = [f"call {each['index']}: {each['message']}" for each in faults[:_MAX_NAMED]]
        if len(faults) > _MAX_NAMED:
            lines.append(f"and {len(faults) - _MAX_NAMED} more")
        return cls(
            f"{len(faults)} of {number} calls cannot be queued, so none was: {'; '.join(lines)}",
            {"faults": faults},
        )


class InvalidMessage(BadTask):
    """A queued message is not in the format of Celery's producers; the text says what differs."""


class UnknownTask(BadTask):
    """A message names a task that the workers do not have."""


class InvalidWorkflow(BadTask):
    """A workflow's definition has faults; the message lists every one."""


class UnknownWorkflow(BadTask):
    """The workflow does not exist in the roles file."""


class QueueUnavailable(BreakwaterError, OperationalError):
    """
    Redis did not accept a task; `details` has its `task_id`.

    Enqueue the task again under the same `task_id`. If the first message arrived and only its
    acknowledgement was lost, the task is still paid for once.
    """


class UnknownRun(BreakwaterError):
    """The workflow run does not exist; runs are deleted after 60 days."""


class LoopExhausted(BreakwaterError):
    """A loop reached `at_most` without its `until` holding, and `or_fail` is set."""


FINISH_REASON = "finish_reason"
"""Key in the details of an error: the provider's finish reason of an unusable answer."""


class ProviderError(BreakwaterError):
    """
    One call to one target failed.

    Args:
        message: Quotes the vendor only if the text cannot contain the prompt or the key.
        status: The HTTP status; None if there was none.
        request_id: The vendor's id of the request; None if it sent none.
        retry_after_s: The pause in seconds that the vendor asks for; None if it did not.
        usage: Tokens of an unusable answer that must be paid for; None if unknown.
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
        fields = {
            "status": status, "request_id": request_id,
            "retry_after_s": retry_after_s, "usage": usage,
        }  # fmt: skip
        super().__init__(
            message, {**(details or {}), **{k: v for k, v in fields.items() if v is not None}}
        )

    @property
    def status(self) -> int | None:
        """The HTTP status; None if there was none."""
        return self.details.get("status")

    @property
    def request_id(self) -> str | None:
        """The vendor's id of the request; None if it sent none."""
        return self.details.get("request_id")

    @property
    def retry_after_s(self) -> float | None:
        """The pause in seconds that the vendor asks for; None if it did not."""
        return self.details.get("retry_after_s")

    @property
    def usage(self) -> "UsageJson | None":
        """Tokens of an unusable answer, by kind; None if unknown, for all kinds or for one."""
        return self.details.get("usage")


class Overloaded(ProviderError):
    """The provider is overloaded (503, 529)."""


class ServerError(ProviderError):
    """The provider failed (any other 5xx)."""


class ProviderTimeout(ProviderError):
    """Connecting, or the whole call, took longer than the provider's timeout."""


class ConnectionFailed(ProviderError):
    """The connection could not be opened, or it broke."""


class GarbledAnswer(ProviderError):
    """The answer is not JSON, has the wrong shape, or is empty."""


class TruncatedAnswer(ProviderError):
    """The connection ended before the answer was complete."""


class UnfinishedAnswer(ProviderError):
    """
    The answer's finish reason is unknown, or it means that the answer continues.

    It is unclear whether the text is complete, so it does not count as an answer. The provider is
    healthy all the same, and a second call to the same target would be paid for again.
    """

    verdict = _PROMPT_HERE


class RateLimited(ProviderError):
    """The provider asks for fewer calls (429); calls to it pause, and its breaker does not trip."""

    verdict = _HELD_BACK


class QuotaExhausted(ProviderError):
    """The account has no credit or no quota left."""

    verdict = _PROOF


class AuthenticationFailed(ProviderError):
    """The key is wrong, expired, or lacks a permission."""

    verdict = _PROOF


class ModelNotFound(ProviderError):
    """
    The provider does not know the model, or this account may not use it.

    Other models of the provider may work, so only this one is held.
    """

    verdict = _MODEL


class ContextWindowExceeded(ProviderError):
    """
    The prompt is longer than this model's context window; another model may have a larger one.
    """

    verdict = _PROMPT_HERE


class ContentFiltered(ProviderError):
    """The provider refuses the prompt or the answer; another provider may accept it."""

    verdict = _PROMPT_HERE


class SchemaViolated(ProviderError):
    """The answer does not satisfy the task's schema; the answer of another target may."""

    verdict = _PROMPT_HERE


class UnsupportedInput(ProviderError):
    """
    The target does not support a part of the call: media, tools, schema, a parameter, the size.
    """

    verdict = _PROMPT_HERE


class InvalidRequest(ProviderError):
    """
    The provider refuses the request with a 4xx for which there is no better class.

    Another target may accept it. When every target has refused the prompt, the task fails.
    """

    verdict = _PROMPT_HERE


class UnknownError(ProviderError):
    """
    The provider reports an unknown error.

    Its cause is unclear, so no breaker counts it, and the prompt may be sent again.
    """

    verdict = _UNKNOWN


class HostFault(ProviderError):
    """
    This host cannot call the provider: a proxy, a certificate, a missing package.

    The task goes to the next target, and no breaker counts it. The message names the setting.
    """

    verdict = _UNKNOWN


class Cancelled(ProviderError):
    """Breakwater ended the call: time limit, revocation or shutdown."""

    verdict = _NOBODY


class WorkerLost(BreakwaterError):
    """Several workers died while they ran this task; the task is not given to another one."""


class ResultTooLarge(BreakwaterError):
    """The result, which is paid for, is larger than Redis should store."""


class ChainExhausted(BreakwaterError):
    """Every target failed, and none of their errors is transient."""


class DeadlineExceeded(BreakwaterError):
    """No target answered before the task's deadline."""


_MAX_COMPARED = 80  # characters of a word; comparing a whole prompt would take seconds


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` if a known word is similar, else an empty string."""
    close = get_close_matches(word[:_MAX_COMPARED], list(known), n=1)
    if not close:
        return ""
    return f" (did you mean {close[0]!r}?)"

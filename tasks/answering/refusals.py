"""Targets that need not be asked again: they refused the prompt in an earlier walk."""

from collections.abc import Sequence

from breakwater import errors
from breakwater.attempt import RETRIED, Attempt
from breakwater.errors import ProviderError, SchemaViolated
from tasks.config import Target

WORDS_AFTER = "; "
"""Separates an attempt's reason from the message of its error."""


def refused_before(target: Target, earlier: Sequence[Attempt]) -> ProviderError | None:
    """
    Return the error by which a target refused this very prompt, if it did.

    Args:
        target: May be asked next.
        earlier: The task's attempts so far, the newest last.
    """
    is_newest = True
    for attempt in reversed(earlier):
        if attempt.error == RETRIED:  # by an operator, who may have corrected the cause
            return None
        if (attempt.provider, attempt.model) != (target.provider, target.model):
            continue
        kind = _refusal(attempt)
        # An answer that violates the schema is corrected once. If something came in between, the
        # target has not answered a second time yet.
        if kind and (is_newest or kind is not SchemaViolated):
            return _rebuilt(kind, target, attempt)
        is_newest = is_newest and attempt.error == SchemaViolated.__name__
    return None


def _refusal(attempt: Attempt) -> type[ProviderError] | None:
    """Return the class of an attempt's error, if asking again would bring the same error."""
    kind = getattr(errors, attempt.error or "", None)
    if attempt.outcome != "failed" or not isinstance(kind, type):
        return None
    if not issubclass(kind, ProviderError) or kind.verdict.retryable_later:
        return None
    return kind


def _rebuilt(kind: type[ProviderError], target: Target, attempt: Attempt) -> ProviderError:
    """Build an earlier walk's error again from its attempt, with the message kept there."""
    _, _, message = attempt.why.partition(WORDS_AFTER)
    fallback = f"{target.provider}: refused this prompt before"
    return kind(message or fallback, status=attempt.status)

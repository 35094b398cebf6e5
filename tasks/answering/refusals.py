"""What earlier walks of a task have shown: targets that need not be asked again."""

from collections.abc import Sequence
from typing import Any

from breakwater import errors
from breakwater.attempt import RETRIED
from breakwater.errors import ProviderError, SchemaViolated
from tasks.config import Target

WORDS_AFTER = "; "
"""What parts an attempt's reason from the words of its error."""


def refused_before(target: Target, earlier: Sequence[dict[str, Any]]) -> ProviderError | None:
    """Return the error by which this target refused this very prompt, if it did."""
    its_last = True
    for attempt in reversed(earlier):
        if attempt["error"] == RETRIED:  # by hand, after something was mended
            return None
        if (attempt["provider"], attempt["model"]) == (target.provider, target.model):
            kind = getattr(errors, attempt.get("error") or "", None)
            if (
                attempt["outcome"] == "failed"
                and isinstance(kind, type)
                and issubclass(kind, ProviderError)
                and not kind.verdict.retryable_later
                # What came between an answer and its mending is no second answer.
                and (its_last or kind is not SchemaViolated)
            ):
                return _rebuilt(kind, target, attempt)
            its_last = its_last and attempt["error"] == SchemaViolated.__name__
    return None


def _rebuilt(kind: type[ProviderError], target: Target, attempt: dict[str, Any]) -> ProviderError:
    """Build an earlier walk's error again from its attempt, with the words kept there."""
    _, _, words = str(attempt.get("why") or "").partition(WORDS_AFTER)
    return kind(
        words or f"{target.provider}: refused this prompt before", status=attempt.get("status")
    )

"""What earlier walks of a task have shown: targets that need not be asked again."""

from collections.abc import Sequence
from typing import Any

from tasks import errors
from tasks.config import Target
from tasks.errors import ProviderError, SchemaViolated
from tasks.ledger.attempt import RETRIED


def refused_before(target: Target, earlier: Sequence[dict[str, Any]]) -> str | None:
    """Name the error by which this target refused this very prompt, if it did."""
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
                and not kind.verdict.heals
                # What came between an answer and its mending is no second answer.
                and (its_last or kind is not SchemaViolated)
            ):
                return kind.__name__
            its_last = its_last and attempt["error"] == SchemaViolated.__name__
    return None

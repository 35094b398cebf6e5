"""Which attempts of the ledger to read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, String, Table, cast

from tasks.ledger.tables import attempts

FOREVER_MS = 2**53
"""Later than every attempt."""


@dataclass(frozen=True, slots=True)
class AttemptFilter:
    """Selects attempts that match every value which is set, and began in [since_ms, until_ms)."""

    provider: str | None = None
    model: str | None = None
    role: str | None = None
    outcome: str | None = None
    since_ms: int = 0
    until_ms: int = FOREVER_MS
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Values as strings: "5" matches 5."""

    def conditions_on(self, table: Table) -> list[ColumnElement[bool]]:
        """Return the conditions on the columns that daily sums and attempts share."""
        names = ("provider", "model", "role", "outcome")
        wanted = ((name, getattr(self, name)) for name in names)
        return [table.c[name] == value for name, value in wanted if value is not None]

    def conditions_on_attempts(self) -> list[ColumnElement[bool]]:
        """Return all conditions on the table of attempts."""
        return [
            *self.conditions_on(attempts),
            attempts.c.started_ms >= self.since_ms,
            attempts.c.started_ms < self.until_ms,
            *(
                cast(attempts.c.metadata[key].as_string(), String) == value
                for key, value in self.metadata.items()
            ),
        ]

"""A settlement: the result of a task, and everything that ends or starts with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settlement:
    """
    The result of one task, as it is written in one step.

    The spool stores a settlement as a JSON object of these fields.

    Attributes:
        task_id: The task's id.
        meta: The result in Celery's format.
        expires_s: How long Redis keeps the result.
        fence: The fencing number of the delivery that settles; empty for others, such as a
            revocation.
        tag: The tag of that delivery.
        opens: A queue to open if it is parked: its role was answered.
        numbered: How many attempts have a number.
        rows: Rows of attempts for the ledger.
        dead: The fields of a dead letter; empty if the task does not become one.
        keep_s: How long Redis keeps the answer for equal calls, if the task owns the call; 0: the
            answer is not kept.
        answer: The serialised answer for equal calls; empty if it must not be cached.
    """

    task_id: str
    meta: str
    expires_s: int
    fence: str = ""
    tag: str = ""
    opens: str = ""
    numbered: int = 0
    rows: Sequence[str] = ()
    dead: Mapping[str, str] = field(default_factory=dict)
    keep_s: int = 0
    answer: str = ""

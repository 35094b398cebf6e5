"""The log line of an attempt."""

import structlog

from breakwater.attempt import Attempt

log = structlog.get_logger("breakwater")


def write(attempt: Attempt, task_id: str, role: str) -> None:
    """Write one line: never a prompt, never an answer, never a key."""
    write_line = log.info if attempt.outcome in {"succeeded", "cached"} else log.warning
    write_line(
        "attempt",
        task_id=task_id,
        role=role,
        **attempt.as_dict(),
        input_tokens=attempt.usage.input_tokens,
        output_tokens=attempt.usage.output_tokens,
    )

"""
What is told of a streamed task.

In Redis the stream `stream:ID` has an entry for each: its field `event` is the type, `data` a JSON
object, encrypted if there are keys.

    text       {"text": …}                              the next piece of the answer's text
    tool_call  {"index": …, "id": …, "name": …, "arguments": …}
                                                        the next piece of a tool call; id and name
                                                        come with its first
    restart    {"provider": …, "error": …}              all that was told before is void
    end        (no data)                                the task has a result: `celery-task-meta-ID`
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from breakwater.result import Result

TEXT: Final = "text"
TOOL_CALL: Final = "tool_call"
RESTART: Final = "restart"
END: Final = "end"


def stream_key(task_id: str) -> str:
    """Return the key of a task's stream."""
    return f"stream:{task_id}"


@dataclass(frozen=True, slots=True)
class Event:
    """
    One thing told of a streamed task.

    `type` says which fields are set: `text`; `index`, `call_id`, `name`, `arguments` of a
    `tool_call`; `provider` and `error` of a `restart`; `result` of the `end`.
    """

    type: Literal["text", "tool_call", "restart", "end"]
    id: str
    """Where to go on from: `stream(result, after=event.id)`."""
    text: str = field(default="", repr=False)
    index: int = 0
    """Of the tool call in the answer, from 0."""
    call_id: str | None = None
    name: str | None = None
    arguments: str = field(default="", repr=False)
    """A piece of the arguments' JSON text."""
    provider: str | None = None
    """Whose answer broke; None where its worker was lost."""
    error: str | None = None
    """The class of the error that it broke with."""
    result: Result | None = field(default=None, repr=False)
    """The whole result, as `result.get()` returns it."""

    @classmethod
    def of(cls, entry_id: str, event: str, data: Mapping[str, Any]) -> "Event | None":
        """Read an entry; None if it is of a type that a newer version has."""
        if event == TEXT:
            return cls(TEXT, entry_id, text=data["text"])
        if event == TOOL_CALL:
            return cls(
                TOOL_CALL, entry_id, index=data["index"], call_id=data["id"], name=data["name"],
                arguments=data["arguments"],
            )  # fmt: skip
        if event == RESTART:
            return cls(RESTART, entry_id, provider=data["provider"] or None, error=data["error"])
        return None

"""
The events of a streamed task.

The Redis stream `stream:ID` has one entry per event: the field `event` is its type, `data` a JSON
object, encrypted if there are keys.

    text       {"text": …}                              the next piece of the answer's text
    tool_call  {"index": …, "id": …, "name": …, "arguments": …}
                                                        the next piece of a tool call; id and name
                                                        come with its first
    restart    {"provider": …, "error": …}              all earlier pieces are void
    end        (no data)                                the task has a result: `celery-task-meta-ID`
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from breakwater.content import JsonObject
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
    One event of a streamed task.

    The `type` determines which fields are set: `text`; `index`, `call_id`, `name`, `arguments` of a
    `tool_call`; `provider` and `error` of a `restart`; `result` of the `end`.
    """

    type: Literal["text", "tool_call", "restart", "end"]
    id: str
    """The position to continue from: `stream(result, after=event.id)`."""
    text: str = field(default="", repr=False)
    index: int = 0
    """The tool call's position in the answer, from 0."""
    call_id: str | None = None
    name: str | None = None
    arguments: str = field(default="", repr=False)
    """A piece of the JSON text of the arguments."""
    provider: str | None = None
    """The provider whose answer broke off; None if its worker was lost."""
    error: str | None = None
    """The class of that error."""
    result: Result | None = field(default=None, repr=False)
    """The whole result, as `result.get()` returns it."""

    @classmethod
    def of(cls, entry_id: str, event: str, data: JsonObject) -> "Event | None":
        """Read an entry; None if only a newer version has its type."""
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

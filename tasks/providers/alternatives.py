"""The one answer that is asked for, among the alternatives that a server may send beside it."""

from typing import Any


class Alternatives:
    """
    Tell the entries of one answer from others, through all chunks of a stream, by their `index`.

    Ours is the lowest index of the first chunk that has any, since some servers count from 1. An
    entry without a whole number is ours, too.
    """

    def __init__(self) -> None:
        self._index: int | None = None

    def select(self, entries: object) -> list[dict[str, Any]]:
        """Return those of a chunk's choices or candidates that belong to the answer."""
        if not isinstance(entries, list):
            return []
        objects = [each for each in entries if isinstance(each, dict)]
        indices = [each["index"] for each in objects if type(each.get("index")) is int]
        if self._index is None and indices:
            self._index = min(indices)
        others = [index for index in indices if index != self._index]
        return [each for each in objects if each.get("index") not in others]

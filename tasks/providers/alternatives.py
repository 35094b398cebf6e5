"""Select the one requested answer among the alternatives that a server may send with it."""

from tasks.providers.json_values import JsonBody, as_list


class Alternatives:
    """
    Selects the entries of one answer, by their `index`, through all chunks of a stream.

    It is the answer with the lowest index of the first chunk that has one, because some servers
    count from 1. An entry whose index is not a whole number belongs to it, too.
    """

    def __init__(self) -> None:
        self._index: int | None = None

    def select(self, entries: object) -> list[JsonBody]:
        """Return the choices or candidates of a chunk that belong to the answer."""
        objects: list[JsonBody] = [each for each in as_list(entries) if isinstance(each, dict)]
        indices = [each["index"] for each in objects if type(each.get("index")) is int]
        if self._index is None and indices:
            self._index = min(indices)
        others = [index for index in indices if index != self._index]
        return [each for each in objects if each.get("index") not in others]

"""Split items into batches: one command with too many of them blocks Redis for long."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` items; none if there are no items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch

"""What a prefork's parent has accepted, its children find."""

import os
from collections.abc import Callable

import pytest

from breakwater.config.document import MAX_BYTES
from tasks.config.shared_page import VERSION, Handover, version_of


def fork(look: Callable[[], bool]) -> int:
    """Look in a child; return its pid."""
    pid = os.fork()
    if pid == 0:
        held = False
        try:
            held = look()
        finally:
            os._exit(0 if held else 1)
    return pid


def held_in(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def in_child(look: Callable[[], bool]) -> bool:
    """Tell whether it holds in a forked child."""
    return held_in(fork(look))


@pytest.mark.parametrize("content", [b"roles: {}", b"x" * MAX_BYTES], ids=["small", "largest"])
def test_a_child_finds_what_was_laid_down(content: bytes) -> None:
    """Once: with that version it has nothing to change."""
    handover = Handover()
    handover.lay_down(b"earlier, and longer than what comes after it")

    handover.lay_down(content)

    assert in_child(lambda: handover.newer("0" * VERSION) == content)
    assert in_child(lambda: handover.newer(version_of(content)) is None)


def test_it_reaches_a_child_that_was_there_before() -> None:
    """The page is shared, not copied."""
    handover = Handover()
    told, tell = os.pipe()

    def look() -> bool:
        os.read(told, 1)
        return handover.newer("0" * VERSION) == b"new"

    child = fork(look)
    handover.lay_down(b"new")
    os.write(tell, b"!")

    assert held_in(child)


def test_the_parent_hands_nothing_to_itself() -> None:
    """It changes by its own hand, and must not be changed back before it has."""
    handover = Handover()
    handover.lay_down(b"new")

    assert handover.newer("0" * VERSION) is None


def test_nothing_is_found_before_the_first_change() -> None:
    """Children begin with what they were forked with."""
    handover = Handover()

    assert in_child(lambda: handover.newer("0" * VERSION) is None)


def test_a_page_in_the_middle_of_a_change_is_left_alone() -> None:
    """What does not match its version is looked at again with the next task."""
    handover = Handover()
    handover.lay_down(b"roles: {a: 1}")

    handover._page[VERSION + 4 : VERSION + 12] = b"garbled!"

    assert in_child(lambda: handover.newer("0" * VERSION) is None)

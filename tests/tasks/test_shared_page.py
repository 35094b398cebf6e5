"""What a prefork's parent has accepted, its children find."""

import os
from collections.abc import Callable

import pytest

from breakwater.config.document import MAX_BYTES
from tasks.config.shared_page import VERSION_LENGTH, SharedPage, version_of


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
    page = SharedPage()
    page.publish(b"earlier, and longer than what comes after it")

    page.publish(content)

    assert in_child(lambda: page.newer("0" * VERSION_LENGTH) == content)
    assert in_child(lambda: page.newer(version_of(content)) is None)


def test_it_reaches_a_child_that_was_there_before() -> None:
    """The page is shared, not copied."""
    page = SharedPage()
    told, tell = os.pipe()

    def look() -> bool:
        os.read(told, 1)
        return page.newer("0" * VERSION_LENGTH) == b"new"

    child = fork(look)
    page.publish(b"new")
    os.write(tell, b"!")

    assert held_in(child)


def test_the_parent_hands_nothing_to_itself() -> None:
    """It changes by its own hand, and must not be changed back before it has."""
    page = SharedPage()
    page.publish(b"new")

    assert page.newer("0" * VERSION_LENGTH) is None


def test_nothing_is_found_before_the_first_change() -> None:
    """Children begin with what they were forked with."""
    page = SharedPage()

    assert in_child(lambda: page.newer("0" * VERSION_LENGTH) is None)


def test_a_page_in_the_middle_of_a_change_is_left_alone() -> None:
    """What does not match its version is looked at again with the next task."""
    page = SharedPage()
    page.publish(b"roles: {a: 1}")

    page._page[VERSION_LENGTH + 4 : VERSION_LENGTH + 12] = b"garbled!"

    assert in_child(lambda: page.newer("0" * VERSION_LENGTH) is None)

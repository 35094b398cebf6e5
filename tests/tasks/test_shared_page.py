"""The children of a prefork read the roles file that their parent has published."""

import os
from collections.abc import Callable

import pytest

from breakwater.config.document import MAX_BYTES
from tasks.config.shared_page import VERSION_LENGTH, SharedPage, version_of


def fork(look: Callable[[], bool]) -> int:
    """Run `look` in a child; return the pid."""
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
    """Return whether `look` holds in a forked child."""
    return held_in(fork(look))


@pytest.mark.parametrize("content", [b"roles: {}", b"x" * MAX_BYTES], ids=["small", "largest"])
def test_a_child_reads_the_published_content_once(content: bytes) -> None:
    """A child that uses this version already gets None."""
    page = SharedPage()
    page.publish(b"earlier, and longer than what comes after it")

    page.publish(content)

    assert in_child(lambda: page.newer("0" * VERSION_LENGTH) == content)
    assert in_child(lambda: page.newer(version_of(content)) is None)


def test_a_child_that_was_forked_before_reads_it_too() -> None:
    """The page is shared, not copied."""
    page = SharedPage()
    reader, writer = os.pipe()

    def look() -> bool:
        os.read(reader, 1)
        return page.newer("0" * VERSION_LENGTH) == b"new"

    child = fork(look)
    page.publish(b"new")
    os.write(writer, b"!")

    assert held_in(child)


def test_the_parent_never_reads_its_own_page() -> None:
    """The parent changes its settings itself; its page must not change them back."""
    page = SharedPage()
    page.publish(b"new")

    assert page.newer("0" * VERSION_LENGTH) is None


def test_the_page_is_empty_before_the_first_change() -> None:
    """Children start with the settings of the fork."""
    page = SharedPage()

    assert in_child(lambda: page.newer("0" * VERSION_LENGTH) is None)


def test_a_child_ignores_a_page_in_the_middle_of_a_change() -> None:
    """Content that does not match its version is read again before the next task."""
    page = SharedPage()
    page.publish(b"roles: {a: 1}")

    page._page[VERSION_LENGTH + 4 : VERSION_LENGTH + 12] = b"garbled!"

    assert in_child(lambda: page.newer("0" * VERSION_LENGTH) is None)

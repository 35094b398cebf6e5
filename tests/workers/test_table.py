"""A table never cuts: ids stay whole, other columns fold, or rows become blocks."""

import io

import pytest

from workers.terminal.console import Terminal
from workers.terminal.table import Table

ID = "89178f19-302a-4f6e-9f0c-0a4b8f1de2c3"
MESSAGE = "every target was tried, and none of their errors can heal by waiting"


def drawn(width: int, *, on_terminal: bool = True) -> str:
    console = Terminal(file=io.StringIO(), width=width, force_terminal=on_terminal, no_color=True)
    table = Table("at (UTC)", "id", "role", "message", "ms", whole=("id",), right=("ms",))
    table.add("2026-11-28 23:11:05", ID, "coder", MESSAGE, 812)
    table.add("2026-11-28 23:11:06", ID, "\x1b[2J[/]", "", 7)
    console.print(table)
    return console.file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [36, 40, 60, 80, 100, 120, 200, 400])
def test_an_id_is_whole_at_every_width(width: int) -> None:
    """And no line is longer than the terminal, no word of the message lost."""
    shown = drawn(width)

    assert sum(ID in line for line in shown.splitlines()) == 2
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    assert set(MESSAGE.split()) <= set(shown.split())


def test_in_a_pipe_a_row_is_a_line() -> None:
    """For grep, whatever the width is said to be."""
    lines = drawn(65_536, on_terminal=False).splitlines()

    assert len(lines) == 3
    assert lines[1].split() == ["2026-11-28", "23:11:05", ID, "coder", *MESSAGE.split(), "812"]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_foreign_text_is_text(width: int) -> None:
    """No escape sequence, and no markup of rich's."""
    shown = drawn(width)

    assert r"\x1b[2J[/]" in shown
    assert "\x1b[2J" not in shown


def test_an_id_wider_than_the_terminal_is_folded_not_cut() -> None:
    """Whoever has 20 columns gets all of it, on two lines."""
    assert ID in drawn(20).replace("\n", "")

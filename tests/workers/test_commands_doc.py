"""docs/commands.md says what the commands say of themselves."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from workers.cli import cli

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
ROWS = dict(re.findall(r"^\| `(breakwater [a-z -]+[a-z])[^`]*` \|(.*)$", PAGE, re.MULTILINE))


GROUPS = ["breakwater", "breakwater breakers", "breakwater dead"]


def commands(node: Any, words: str) -> Iterator[tuple[str, Any]]:
    """Walk the commands that do something when they are typed."""
    children = getattr(node, "commands", {})
    if not children or node.invoke_without_command:
        yield words, node
    for name, child in children.items():
        yield from commands(child, f"{words} {name}")


OLD = {
    "breakwater breakers open", "breakwater breakers close",
    "breakwater metrics summary", "breakwater metrics export",
}  # fmt: skip
"""Old names that still work and are hidden; the page names them below the table."""
ALL = dict(commands(typer.main.get_command(cli), "breakwater"))
COMMANDS = {words: node for words, node in ALL.items() if words not in OLD}


def test_every_command_is_on_the_page_and_no_other() -> None:
    """One row a command."""
    assert set(ROWS) == set(COMMANDS)


def test_the_old_names_still_work_and_are_not_listed() -> None:
    """Scripts that use them go on; `--help` shows the new names only."""
    assert set(ALL) >= OLD
    for words in OLD:
        old_group = typer.main.get_command(cli).commands[words.split()[1]]  # type: ignore[attr-defined]
        assert ALL[words].hidden or old_group.hidden


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_in_its_row_and_no_other(words: str) -> None:
    """An option that exists is named, one that is named exists."""
    named = set(re.findall(r"--[a-z-]+", ROWS[words]))

    options = {name for each in COMMANDS[words].params for name in each.opts if name[:2] == "--"}

    assert named == options - {"--help"}


@pytest.mark.parametrize("words", sorted({*COMMANDS, *GROUPS}))
def test_every_help_fits_a_screen(words: str) -> None:
    """24 lines of 80 columns show all there is to know."""
    from typer.testing import CliRunner

    done = CliRunner(env={"COLUMNS": "80"}).invoke(cli, [*words.split()[1:], "--help"])

    lines = done.output.rstrip().splitlines()
    assert len(lines) <= 24, done.output
    assert max(map(len, lines)) <= 80


def test_every_command_is_described_in_one_line_of_its_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No line of `--help` is empty or cut at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    listings = [
        CliRunner().invoke(cli, [*words.split()[1:], "--help"]).stdout
        for words in ("breakwater", "breakwater ledger", "breakwater workflow", *GROUPS)
    ]

    for listing in listings:
        rows = listing.partition("Commands:\n")[2].splitlines()
        assert rows
        assert [row for row in rows if not re.match(r"  [a-z-]+ +\S.*[^.]\.$", row)] == []
        assert listing.splitlines()[2].startswith("  "), "the group itself is described"

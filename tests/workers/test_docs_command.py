"""`breakwater docs`, and the hints that name its pages."""

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.cli import cli
from workers.commands.docs import anchor_of, pages

ROOT = Path(__file__).parents[2]
HINT = re.compile(r"`breakwater docs ([\w-]+)(?:#([\w-]+))?`")


def messages() -> list[tuple[str, str]]:
    """Return every string of the product's code that is not a docstring, with its file."""
    found = []
    for floor in ("breaker", "breakwater", "tasks", "workers"):
        for path in (ROOT / floor).rglob("*.py"):
            tree = ast.parse(path.read_text())
            alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            found += [
                (str(path.relative_to(ROOT)), node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in alone
            ]
    return found


def run(*words: str) -> tuple[int, str]:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["docs", *words])
    return done.exit_code, done.output


def test_every_hint_names_a_page_and_a_section_that_exist() -> None:
    """A hint that leads nowhere is worse than none."""
    hints = {
        (name, page, anchor) for name, text in messages() for page, anchor in HINT.findall(text)
    }

    assert len(hints) > 6
    for name, page, anchor in hints:
        assert page in pages(), f"{name}: {page}"
        headings = re.findall(r"^#+ .*$", pages()[page].read_text(), re.MULTILINE)
        assert not anchor or anchor in map(anchor_of, headings), f"{name}: {page}#{anchor}"


def test_no_message_names_a_file_of_the_repository() -> None:
    """A wheel has no `docs/redis.md`; the command works from there as well."""
    assert [each for each in messages() if re.search(r"docs/[\w-]+\.md", each[1])] == []


@pytest.mark.parametrize("words", ["redis", "redis.md", "docs/redis.md"])
def test_a_page_is_printed_as_it_is(words: str) -> None:
    """The name of its file does as well."""
    assert run(words) == (0, (ROOT / "docs" / "redis.md").read_text())


def test_a_section_ends_where_the_next_one_begins() -> None:
    """Its subsections belong to it."""
    code, section = run("redis#encryption")

    assert code == 0
    assert section.startswith("## Encryption\n")
    assert re.findall(r"^## (.*)$", section, re.MULTILINE) == ["Encryption"]


@pytest.mark.parametrize(
    ("words", "message"),
    [("reds", "unknown page 'reds'"), ("redis#encryptio", "did you mean 'encryption'?")],
)
def test_an_unknown_page_or_section_names_the_nearest(words: str, message: str) -> None:
    """Wrong words are exit code 2."""
    code, output = run(words)

    assert code == 2
    assert message in output


def test_the_pages_are_in_the_wheel() -> None:
    """`workers.docs` is a package without modules, whose folder is `docs/`."""
    text = (ROOT / "pyproject.toml").read_text()

    assert '"workers.docs" = "docs"' in text
    assert '"workers.docs" = ["*.md"]' in text

"""What the pages name is there: links, anchors, imports, commands, options, targets and files."""

import ast
import builtins
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shell import fault_of

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
}
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
YOURS = {"docs/breaker.md": {"ask", "prompt"}}
"""Names that a page leaves to the reader."""
ELSEWHERE = {"tests/pybreaker_test.py"}
"""Files of other projects."""
OURS = ("breaker", "breakwater", "tasks", "workers", "simulator")
FOLDERS = (*OURS, "tests", "deploy", "docs", "benchmarks")


def prose(path: Path) -> str:
    return FENCED.sub("", path.read_text())


def slug(heading: str) -> str:
    """As GitHub makes an anchor of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip())
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE):
        name = slug(heading)
        names.add(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return names


def links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(<?([^)\s>]+)>?\)", prose(path)):
        if not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """To a file that is there, and to a heading that it has."""
    path, wrong = PAGES[page], []

    for target in links(path):
        file, _, anchor = target.partition("#")
        where = (path.parent / file).resolve() if file else path
        if not where.exists() or (
            anchor and where.suffix == ".md" and anchor not in anchors(where)
        ):
            wrong.append(target)

    assert not wrong


IMPORT = re.compile(r"^\s*(?:>>> )?from ([\w.]+) import (\([^)]*\)|[^\n#;]+)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_import_works(page: str) -> None:
    """Of our packages: the module, and each name."""
    wrong = []

    for block in FENCED.findall(PAGES[page].read_text()):
        for module, names in IMPORT.findall(block):
            if module.split(".")[0] not in OURS:
                continue
            for name in re.split(r"[,\s]+", names.strip("()\n ")):
                if name and not _has(module, name.split(" as ")[0]):
                    wrong.append(f"from {module} import {name}")

    assert not wrong


def _undefined(block: str, known: set[str]) -> set[str]:
    """Return the names that a block reads and nobody has made; add those it makes to the known."""
    tree = ast.parse(block)
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            case ast.Name(ctx=ast.Store()):
                known.add(node.id)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                known.add(node.name)
            case ast.arg():
                known.add(node.arg)
            case ast.ExceptHandler(name=str(name)):
                known.add(name)
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return read - known


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_every_block_of_python_has_what_it_names(page: str) -> None:
    """It can be parsed, and reads no name that neither it nor one before it has imported or made."""
    known = {*dir(builtins), *YOURS.get(page, ())}

    for block in re.findall(
        r"^```python\n(.*?)^```", PAGES[page].read_text(), re.DOTALL | re.MULTILINE
    ):
        assert not _undefined(block, known)


def _has(module: str, name: str) -> bool:
    found = importlib.import_module(module)
    return hasattr(found, name) or name == "as"


def words_of(path: Path) -> Iterator[list[str]]:
    """Return what is typed: lines of blocks, and code in the text that begins as a command does."""
    text = path.read_text()
    typed = [line for block in FENCED.findall(text) for line in block.splitlines()]
    typed += re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    for line in typed:
        line = re.sub(r"^\s*(\$ |\w+=\S+ )*", "", line).partition("  #")[0]
        line = line.removeprefix("docker compose exec worker ").removeprefix(".venv/bin/")
        if re.match(r"(breakwater|make|python -m simulator)( |$)", line):
            try:
                yield shlex.split(line.split(" | ")[0].split(" > ")[0], comments=True)
            except ValueError:  # half a quotation, in a text
                yield line.split()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_every_command_and_option_is_there(page: str) -> None:
    """Of `breakwater`, of `make`, and of the simulator."""
    wrong = [fault for words in words_of(PAGES[page]) if (fault := fault_of(words))]

    assert not wrong


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_is_there(page: str) -> None:
    """In code, with its folder."""
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+\.\w+)`", PAGES[page].read_text())

    assert not [
        name
        for name in {*named} - ELSEWHERE
        if not (ROOT / name).exists() and not (ROOT / "tasks" / name).exists()
    ]


def test_what_is_wrong_would_be_found() -> None:
    """The checks above see what they are there for."""
    assert not _has("tasks", "nothing")
    assert "read-on" in anchors(ROOT / "README.md")

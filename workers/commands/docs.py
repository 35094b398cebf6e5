"""`breakwater docs`: the pages of this version's documentation, also from an installed wheel."""

import re
from pathlib import Path
from typing import Annotated

import typer

from breakwater.errors import nearest
from workers.terminal.console import out, print_answer, refuse
from workers.terminal.table import Table


def folder() -> Path:
    """Return the folder of the pages: inside the wheel, or `docs/` of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "docs"
    if installed.is_dir():
        return installed
    return package.parent / "docs"


def pages() -> dict[str, Path]:
    """Return the pages by name, such as `redis`."""
    return {path.stem: path for path in sorted(folder().glob("*.md"))}


def _complete_page() -> list[str]:
    return list(pages())


def docs(
    page: Annotated[
        str | None,
        typer.Argument(
            help="A page, or PAGE#HEADING for one section; default: list the pages.",
            autocompletion=_complete_page,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print a page of this version's documentation, such as redis."""
    existing = pages()
    if page is None:
        table = Table("page", "title", whole=("page",))
        for name, path in existing.items():
            table.add(name, _title(path))
        out.print(table)
        return
    name, _, heading = page.removeprefix("docs/").partition("#")
    name = name.removesuffix(".md")
    if name not in existing:
        listed = ", ".join(existing) or "none: this installation has no pages"
        refuse(f"unknown page {name!r}; there are {listed}{nearest(name, existing)}")
    text = existing[name].read_text(encoding="utf-8")
    if heading:
        text = _section(text, name, heading)
    print_answer(text.rstrip())


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def _section(text: str, page: str, heading: str) -> str:
    """Return the section under a heading, with its subsections."""
    lines = text.splitlines()
    anchors: dict[str, int] = {}
    fenced = False
    for at, line in enumerate(lines):
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            anchors.setdefault(anchor_of(line), at)
    if heading not in anchors:
        known = ", ".join(anchors)
        refuse(f"page {page} has no section {heading!r}; it has {known}{nearest(heading, anchors)}")
    first = anchors[heading]
    level = _level(lines[first])
    following = [at for at in anchors.values() if at > first and _level(lines[at]) <= level]
    last = min(following, default=len(lines))
    return "\n".join(lines[first:last])


def _level(line: str) -> int:
    return len(line) - len(line.lstrip("#"))


def anchor_of(line: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", line.lstrip("#").strip())
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")

"""The pages of the documentation, and the code blocks on them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
}
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```[ ]*$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"\A(?:#|//|;|--) ([\w./@-]+\.\w+)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """
    A fenced block.

    Attributes:
        line: Of its first line in the page, from 1.
        language: What stands behind the fence; empty if nothing does.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str:
        """The name of a file that the block shows, from a comment in its first line; or empty."""
        named = FILE_NAME.match(self.text)
        return named[1] if named else ""

    @property
    def place(self) -> str:
        """Where it is, as an editor opens it."""
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = PAGES[page].read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start()) + 2,
            found[2].strip(),
            re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE),
        )
        for found in FENCE.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks_of(page)]

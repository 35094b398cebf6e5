"""A table that never cuts anything: ids stay whole, other columns fold, or each row is a block."""

from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from workers.terminal.plain import plain

GAP = 2
LEAST = 10
"""Columns that a folded cell has at least; a table without room for that is shown as blocks."""

Cell = str | int | Text


class Table:
    """
    Rows under heads.

    In a pipe each row is one line, for grep. On a terminal columns fold; if there is no room even
    then, each row becomes a block of lines, one for each cell that is not empty.

    Args:
        heads: One for each column.
        whole: The columns that hold ids and other names to copy: never folded.
        right: The columns of numbers: aligned to the right, never folded.
    """

    def __init__(self, *heads: str, whole: Iterable[str] = (), right: Iterable[str] = ()) -> None:
        self.heads = heads
        self.whole = {*whole}
        self.right = {*right}
        self.rows: list[list[Text]] = []

    def add(self, *cells: Cell) -> None:
        """Add a row; a str may be anybody's text, a Text is made of `plain` ones."""
        self.rows.append([cell if isinstance(cell, Text) else Text(plain(cell)) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it, as there is room."""
        widths = [
            max([cell_len(head), *(row[at].cell_len for row in self.rows)])
            for at, head in enumerate(self.heads)
        ]
        room = options.max_width - GAP * (len(self.heads) - 1)
        if not console.is_terminal or sum(widths) <= room:
            yield from self._lines(widths)
        elif fitting := self._folded(widths, room):
            yield self._table(fitting)
        else:
            yield from self._blocks()

    def _lines(self, widths: list[int]) -> Iterable[Text]:
        for row in [[Text(head, style="bold") for head in self.heads], *self.rows]:
            line = Text(no_wrap=True, overflow="ignore")
            for head, cell, width in zip(self.heads, row, widths, strict=True):
                blank = Text(" " * (width - cell.cell_len))
                line += (blank + cell if head in self.right else cell + blank) + Text(" " * GAP)
            line.rstrip()
            yield line

    def _folded(self, widths: list[int], room: int) -> list[int]:
        """Take from the widest columns that may fold until all fit; empty if they cannot."""
        fitting = list(widths)
        foldable = [at for at, head in enumerate(self.heads) if head not in self.whole | self.right]
        while sum(fitting) > room:
            at = max(foldable, key=fitting.__getitem__, default=-1)
            if at < 0 or fitting[at] <= max(LEAST, cell_len(self.heads[at])):
                return []
            fitting[at] -= 1
        return fitting

    def _table(self, widths: list[int]) -> RichTable:
        table = RichTable(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        for head, width in zip(self.heads, widths, strict=True):
            justify = "right" if head in self.right else "left"
            table.add_column(head, width=width, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(*row)
        return table

    def _blocks(self) -> Iterable[Text]:
        for number, row in enumerate(self.rows):
            if number:
                yield Text()
            cells = [*zip(self.heads, row, strict=True)]
            for head, cell in sorted(cells, key=lambda each: each[0] not in self.whole):
                if cell.plain:
                    named = Text(f"{head}: ", style="bold") if head not in self.whole else Text()
                    line = (named if head else Text()) + cell
                    line.overflow = "fold"
                    yield line

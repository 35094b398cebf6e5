"""Draw a table that never cuts text: ids stay whole, other columns fold, or rows become blocks."""

from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from workers.terminal.plain import plain

GAP = 2
MIN_COLUMNS = 10
"""The least width of a folded cell; a table that would need less is drawn as blocks."""

Cell = str | int | Text


class Table:
    """
    Rows under heads.

    In a pipe each row is one line, for grep. On a terminal columns fold. If folding does not help,
    each row becomes a block of lines, one for each cell that is not empty.

    Args:
        heads: One for each column.
        whole: The columns of ids and other names that a reader copies: never folded.
        right: The columns of numbers: aligned to the right, never folded.
    """

    def __init__(self, *heads: str, whole: Iterable[str] = (), right: Iterable[str] = ()) -> None:
        self.heads = heads
        self.whole = {*whole}
        self.right = {*right}
        self.rows: list[list[Text]] = []

    def add(self, *cells: Cell) -> None:
        """Add a row; a str may be any text, a Text must be made of `plain` ones."""
        self.rows.append([_to_text(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table in the form for which there is room."""
        widths = [
            max([cell_len(head), *(row[column].cell_len for row in self.rows)])
            for column, head in enumerate(self.heads)
        ]
        room = options.max_width - GAP * (len(self.heads) - 1)
        if not console.is_terminal or sum(widths) <= room:
            yield from self._draw_lines(widths)
        elif folded := self._fold(widths, room):
            yield self._draw_folded(folded)
        else:
            yield from self._draw_blocks()

    def _draw_lines(self, widths: list[int]) -> Iterator[Text]:
        for row in [[Text(head, style="bold") for head in self.heads], *self.rows]:
            line = Text(no_wrap=True, overflow="ignore")
            for head, cell, width in zip(self.heads, row, widths, strict=True):
                blank = Text(" " * (width - cell.cell_len))
                if head in self.right:
                    line += blank + cell
                else:
                    line += cell + blank
                line += Text(" " * GAP)
            line.rstrip()
            yield line

    def _fold(self, widths: list[int], room: int) -> list[int]:
        """Narrow the widest columns that may fold until all fit; return nothing if they cannot."""
        folded = list(widths)
        unfoldable = self.whole | self.right
        foldable = [column for column, head in enumerate(self.heads) if head not in unfoldable]
        while sum(folded) > room:
            column = max(foldable, key=folded.__getitem__, default=-1)
            if column < 0 or folded[column] <= max(MIN_COLUMNS, cell_len(self.heads[column])):
                return []
            folded[column] -= 1
        return folded

    def _draw_folded(self, widths: list[int]) -> RichTable:
        table = RichTable(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        for head, width in zip(self.heads, widths, strict=True):
            justify: JustifyMethod = "right" if head in self.right else "left"
            table.add_column(head, width=width, justify=justify, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def _draw_blocks(self) -> Iterator[Text]:
        for number, row in enumerate(self.rows):
            if number:
                yield Text()
            cells = [*zip(self.heads, row, strict=True)]
            for head, cell in sorted(cells, key=lambda each: each[0] not in self.whole):
                if cell.plain:
                    yield self._draw_block_line(head, cell)

    def _draw_block_line(self, head: str, cell: Text) -> Text:
        line = Text()
        if head and head not in self.whole:
            line = Text(f"{head}: ", style="bold")
        line += cell
        line.overflow = "fold"
        return line


def _to_text(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text(plain(cell))

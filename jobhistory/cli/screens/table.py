"""Tables that fit any width: columns get narrower and then disappear, the least important first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from rich.cells import cell_len
from rich.text import Text

from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.shorten import cut_end, padded

_GAP = "  "
_INDENT = 4
_MOST_CELLS = 240
_MOST_LINES = 3
"""An error below its row has so many lines, or more on a narrow terminal; `show` prints all."""


class Cell(NamedTuple):
    """A text of one line, and shorter ones that say the same where columns are narrow."""

    text: str
    style: str = ""
    shorter: tuple[str, ...] = ()

    def form(self, number: int) -> str:
        """Return one of the texts; the shortest one if there are fewer."""
        return (self.text, *self.shorter)[: number + 1][-1]


@dataclass(frozen=True)
class Column:
    """How a column looks, and when it gives way to others.

    Attributes:
        heading: the heading, with the unit or time zone of the column.
        priority: columns of lower priority give way first. All are narrowed before one is left out.
        right: whether cells are aligned at the right, as numbers are.
        least: the width down to which cells may be cut, but not the heading; `None` if they may
            not.
        most: the width above which cells are cut, however wide the terminal is.
        cut: how to cut: `cut_end` or `cut_middle`.
        moves_below: whether the cells move to lines of their own, below their rows, if the table is
            too wide with them; only for the last column. It is never left out.
    """

    heading: str
    priority: int = 0
    right: bool = False
    least: int | None = None
    most: int | None = None
    cut: Callable[[str, int, str], str] = cut_end
    moves_below: bool = False


class Placed(NamedTuple):
    """A column that is shown: its number, the form of its cells, and its width."""

    number: int
    form: int
    width: int


Row = Sequence[Cell]
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """Rows below headings.

    Attributes:
        columns: the columns, from left to right.
        rows: the rows, with a cell for each column.
        total: a last row, for sums.
        below: for each row, the lines below it.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    total: Row | None = None
    below: Sequence[Iterable[Text]] = ()

    def without(self, *headings: str) -> Table:
        """Return the table without some columns."""
        kept = [number for number, each in enumerate(self.columns) if each.heading not in headings]

        def only_kept(cells: Sequence[T]) -> list[T]:
            return [cells[number] for number in kept]

        rows = [only_kept(row) for row in self.rows]
        total = None if self.total is None else only_kept(self.total)
        return Table(only_kept(self.columns), rows, total, self.below)

    def without_empty(self) -> Table:
        """Return the table without the columns in which all cells are empty."""
        return self.without(
            *(
                column.heading
                for number, column in enumerate(self.columns)
                if not any(row[number].text for row in self.rows)
            )
        )

    def print(self, screen: Screen) -> None:
        """Print the table as wide as the terminal, or less."""
        for line in self.lines(screen):
            screen.print(line)

    def lines(self, screen: Screen) -> Iterator[Text]:
        """Yield the lines. None is wider than the terminal."""
        all_rows = [*self.rows, *([self.total] if self.total is not None else [])]
        places = fit(self.columns, form_widths(self.columns, all_rows), screen.width)
        yield heading_line(self.columns, places, screen)
        for number, row in enumerate(self.rows):
            yield from row_lines(self.columns, places, row, screen)
            yield from self.below[number] if self.below else ()
        if self.total is not None:
            yield row_line(
                self.columns, places, [c._replace(style="bold") for c in self.total], screen
            )


def form_widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[list[int]]:
    """Return the width of each form of each column."""
    widths = []
    for number, column in enumerate(columns):
        cells = [row[number] for row in rows]
        forms = 1 + max((len(cell.shorter) for cell in cells), default=0)
        widths.append(
            [
                max(cell_len(column.heading), *(cell_len(cell.form(form)) for cell in cells), 0)
                for form in range(forms)
            ]
        )
    return widths


def fit(columns: Sequence[Column], widths: Sequence[Sequence[int]], width: int) -> list[Placed]:
    """Choose the columns, their forms and their widths, so that a row fits a width.

    Args:
        widths: for each column, the width of each form of its cells.
    """
    natural = [_capped(column, forms[0]) for column, forms in zip(columns, widths, strict=True)]
    least = [_least(column, forms) for column, forms in zip(columns, widths, strict=True)]
    kept = [number for number, column in enumerate(columns) if not column.moves_below]
    if len(kept) < len(columns) and _total(natural, range(len(columns))) <= width:
        kept = list(range(len(columns)))
    by_priority = sorted(kept, key=lambda number: columns[number].priority)
    while len(kept) > 1 and _total(least, kept) > width:
        kept.remove(by_priority.pop(0))
    excess = _total(natural, kept) - width
    placed = {number: Placed(number, 0, natural[number]) for number in kept}
    for number in by_priority:
        if excess <= 0:
            break
        room = max(min(least[number], width), natural[number] - excess)
        placed[number] = _narrowed(number, widths[number], room)
        excess -= natural[number] - placed[number].width
    return [placed[number] for number in kept]


def _narrowed(number: int, forms: Sequence[int], room: int) -> Placed:
    """Return the place of the longest form that fits the room, or of the shortest one, cut."""
    for form, width in enumerate(forms):
        if width <= room:
            return Placed(number, form, width)
    return Placed(number, len(forms) - 1, room)


def _capped(column: Column, width: int) -> int:
    return width if column.most is None else min(width, column.most)


def _least(column: Column, forms: Sequence[int]) -> int:
    width = _capped(column, min(forms))
    return (
        width if column.least is None else min(width, max(column.least, cell_len(column.heading)))
    )


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[number] for number in kept) + len(_GAP) * (len(kept) - 1)


def heading_line(columns: Sequence[Column], places: Sequence[Placed], screen: Screen) -> Text:
    """Return the line of headings."""
    return row_line(columns, places, [Cell(column.heading, "bold") for column in columns], screen)


def row_line(columns: Sequence[Column], places: Sequence[Placed], row: Row, screen: Screen) -> Text:
    """Return the line of a row."""
    parts = []
    for number, form, width in places:
        column, cell = columns[number], row[number]
        text = column.cut(cell.form(form), width, screen.ellipsis)
        parts.append(Text(padded(text, width, right=column.right), cell.style))
    line = Text(_GAP).join(parts)
    line.rstrip()
    return line


def row_lines(
    columns: Sequence[Column], places: Sequence[Placed], row: Row, screen: Screen
) -> Iterator[Text]:
    """Yield the line of a row, and what moves below it."""
    yield row_line(columns, places, row, screen)
    if columns[-1].moves_below and places[-1].number != len(columns) - 1:
        yield from wrapped(row[-1].text, row[-1].style, screen)


def wrapped(text: str, style: str, screen: Screen) -> Iterator[Text]:
    """Yield the lines of a text below a row: indented, and no more than a few."""
    if not text:
        return
    indent = " " * (_INDENT if screen.width > 4 * _INDENT else 0)
    width = screen.width - len(indent)
    most = max(_MOST_LINES, -(-_MOST_CELLS // width))
    lines = [line.plain.rstrip() for line in screen.wrap(text, width)]
    if len(lines) > most:
        lines[most - 1 :] = [cut_end(" ".join(lines[most - 1 :]), width, screen.ellipsis)]
    for line in lines:
        yield Text(indent).append(line, style)

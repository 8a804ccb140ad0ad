"""The screen of `jobhistory tail`: executions one by one, as they start and end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobhistory.cli.output import print_tabbed
from jobhistory.cli.screens.records import HEADINGS, record_cells, record_columns, record_row
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import fit, form_widths, heading_line, row_lines
from jobhistory.cli.screens.units import SECONDS
from jobhistory.schema import HistoryRecord

_AGE = 1
"""The column of ages, which are all alike here."""

_EXPECTED = ([19, 12], [9], [9], [20], [20], [1_000_000])
"""The least widths of the forms of the other columns. Nobody knows what comes, so they grow. Errors
are always on lines of their own.
"""


def print_changes(screen: Screen, records: Iterable[HistoryRecord]) -> None:
    """Print one line per record as it arrives: aligned on a terminal, tab-separated in a pipe."""
    if not screen.is_terminal:
        print_tabbed([HEADINGS])
        print_tabbed(map(record_cells, records))
        return
    columns = record_columns(screen, [], SECONDS)
    del columns[_AGE]
    widths = _grown(_EXPECTED, form_widths(columns, []))
    screen.print(heading_line(columns, fit(columns, widths, screen.width), screen))
    for record in records:
        row = list(record_row(screen, record, SECONDS))
        del row[_AGE]
        widths = _grown(widths, form_widths(columns, [row]))
        for line in row_lines(columns, fit(columns, widths, screen.width), row, screen):
            screen.print(line)


def _grown(widths: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the greater widths; where a column has fewer forms, its last one counts."""
    grown = []
    for ours, theirs in zip(widths, others, strict=True):
        count = max(len(ours), len(theirs))
        grown.append([max(_form(ours, form), _form(theirs, form)) for form in range(count)])
    return grown


def _form(widths: Sequence[int], form: int) -> int:
    return widths[min(form, len(widths) - 1)]

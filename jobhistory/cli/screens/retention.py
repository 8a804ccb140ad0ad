"""The screen of `jobhistory retention`: one line per rule."""

from __future__ import annotations

from collections.abc import Sequence

from jobhistory.cli.output import one_line, print_tabbed
from jobhistory.cli.screens.cells import number_column
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Table
from jobhistory.cli.screens.units import count_text
from jobhistory.query.retention import RetentionCoverage

_HEADINGS = ("COVERED", "TO CHANGE", "TO DELETE", "RULE")
_LEAST = 20


def print_retention(screen: Screen, coverages: Sequence[RetentionCoverage]) -> None:
    """Print one line per rule, with the numbers of executions."""
    if not screen.is_terminal:
        print_tabbed([_HEADINGS])
        print_tabbed(map(_texts, coverages))
        return
    columns = [
        *(number_column(heading, 60) for heading in _HEADINGS[:3]),
        Column("RULE", 70, least=_LEAST),
    ]
    rows = [
        (
            Cell(count_text(each.covered)),
            Cell(count_text(each.to_change)),
            Cell(count_text(each.to_delete), "red" if each.to_delete else ""),
            Cell(screen.text(each.description)),
        )
        for each in coverages
    ]
    Table(columns, rows).print(screen)


def _texts(coverage: RetentionCoverage) -> tuple[str, ...]:
    counts = (coverage.covered, coverage.to_change, coverage.to_delete)
    return (*map(str, counts), one_line(coverage.description))

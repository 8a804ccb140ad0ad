"""The screen of `jobhistory failures`: one line per group, its error and an example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from jobhistory.cli.charts import bar
from jobhistory.cli.output import iso_text, one_line, print_tabbed
from jobhistory.cli.screens.cells import (
    age_cell,
    counted,
    moment_cell,
    moment_column,
    moment_text,
    name_column,
    number_column,
)
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Table, wrapped
from jobhistory.cli.screens.units import count_text
from jobhistory.query.reports import FailureGroup

_HEADINGS = ("FAILURES", "LAST (UTC)", "TASK", "ERROR")
_BAR_WIDTH = 10


def print_failures(screen: Screen, groups: Sequence[FailureGroup]) -> None:
    """Print one line per group; on a terminal, another one names an example."""
    if not screen.is_terminal:
        print_tabbed([_HEADINGS])
        print_tabbed(map(_texts, groups))
        return
    if not groups:
        screen.print("no failures")
        return
    columns = [
        number_column("FAILURES", 90),
        Column("", 20),
        moment_column("LAST", 50, (group.last_seen for group in groups), screen),
        Column("AGE", 30),
        name_column("TASK", 80, least=20),
        Column("ERROR", moves_below=True),
    ]
    most = max(group.count for group in groups)
    rows = [
        (
            Cell(count_text(group.count)),
            Cell(bar(group.count / most, _BAR_WIDTH, ascii_only=screen.ascii_only), "red"),
            moment_cell(group.last_seen, screen),
            age_cell(group.last_seen, screen),
            Cell(screen.text(group.task_identifier)),
            Cell(screen.text(_error(group)), "red"),
        )
        for group in groups
    ]
    Table(columns, rows, below=[list(_example(screen, group)) for group in groups]).print(screen)
    if len(groups) > 1:
        count = sum(group.count for group in groups)
        screen.print_note(f"{counted(count, 'failure')} in {counted(len(groups), 'group')}")


def _example(screen: Screen, group: FailureGroup) -> Iterator[Text]:
    since = f"{moment_text(group.first_seen, screen)} {screen.zone([group.first_seen])}"
    job = screen.text(group.example.job_id)
    return wrapped(f"since {since}, for example job {job}", "dim", screen)


def _error(group: FailureGroup) -> str:
    return f"{group.error_type}: {group.message}" if group.message else group.error_type


def _texts(group: FailureGroup) -> tuple[str, ...]:
    return (
        str(group.count),
        iso_text(group.last_seen),
        one_line(group.task_identifier),
        one_line(_error(group)),
    )
